/* The network gives what it gave where it was made, byte by byte. */
#include <stdio.h>
#include <string.h>

#include "@prefix@.h"
#include "test_@prefix@.h"

int main(void) {
  static int8_t output[@PREFIX@_OUTPUT_SIZE];
  int test, failed = 0;
  for (test = 0; test < NUM_TESTS; ++test) {
    @prefix@_invoke(test_inputs + test * @PREFIX@_INPUT_SIZE, output);
    if (memcmp(output, test_outputs + test * @PREFIX@_OUTPUT_SIZE, @PREFIX@_OUTPUT_SIZE)) {
      printf("input %d: other outputs\n", test);
      ++failed;
    }
  }
  printf("%d of %d inputs give the expected bytes\n", NUM_TESTS - failed, NUM_TESTS);
  return failed != 0;
}
