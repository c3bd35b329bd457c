/* The network gives what it gave where it was made, byte by byte. */
#include <stdio.h>
#include <string.h>

#include "model.h"
#include "test_vectors.h"

int main(void) {
  static int8_t output[MODEL_OUTPUT_SIZE];
  int test, failed = 0;
  for (test = 0; test < NUM_TESTS; ++test) {
    model_invoke(test_inputs + test * MODEL_INPUT_SIZE, output);
    if (memcmp(output, test_outputs + test * MODEL_OUTPUT_SIZE, MODEL_OUTPUT_SIZE)) {
      printf("input %d: other outputs\n", test);
      ++failed;
    }
  }
  printf("%d of %d inputs give the expected bytes\n", NUM_TESTS - failed, NUM_TESTS);
  return failed != 0;
}
