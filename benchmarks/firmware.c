/* Prints how many inputs give other bytes than expected, and SysTick's ticks of the last
   inference. */
#include <stdio.h>
#include <string.h>

#include "model.h"
#include "test_vectors.h"

static volatile unsigned *const systick = (volatile unsigned *)0xE000E010;
static int8_t output[MODEL_OUTPUT_SIZE];

int main(void) {
  unsigned test, ticks = 0, wrong = 0;
  systick[1] = 0xFFFFFF; /* reload */
  for (test = 0; test < NUM_TESTS; ++test) {
    systick[2] = 0; /* current: starts anew */
    systick[0] = 5; /* on, of the processor's clock */
    model_invoke(test_inputs + test * MODEL_INPUT_SIZE, output);
    ticks = 0xFFFFFF - systick[2];
    wrong += memcmp(output, test_outputs + test * MODEL_OUTPUT_SIZE,
                    MODEL_OUTPUT_SIZE) != 0;
  }
  printf("%u %u\n", wrong, ticks);
  return 0;
}
