/* Prints how many inputs give other bytes than expected, and the ticks of SysTick that
   each step took, of all inputs together. */
#include <stdio.h>
#include <string.h>

#include "measure.h"
#include "model.h"
#include "test_model.h"

static volatile unsigned *const systick = (volatile unsigned *)0xE000E010;
static unsigned ticks[NUM_STEPS], started;
static int8_t output[MODEL_OUTPUT_SIZE];

void end_of_step(int step) {
  ticks[step] += (started - systick[2]) & 0xFFFFFF;
  started = systick[2];
}

int main(void) {
  unsigned test, step, wrong = 0;
  systick[1] = 0xFFFFFF; /* reload */
  systick[2] = 0;        /* current: starts anew */
  systick[0] = 5;        /* on, of the processor's clock */
  for (test = 0; test < NUM_TESTS; ++test) {
    started = systick[2];
    model_invoke(test_inputs + test * MODEL_INPUT_SIZE, output);
    wrong += memcmp(output, test_outputs + test * MODEL_OUTPUT_SIZE,
                    MODEL_OUTPUT_SIZE) != 0;
  }
  printf("%u", wrong);
  for (step = 0; step < NUM_STEPS; ++step) {
    printf(" %u", ticks[step]);
  }
  printf("\n");
  return 0;
}
