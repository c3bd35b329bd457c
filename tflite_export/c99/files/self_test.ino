/* The network gives what it gave where it was made, byte by byte. */
#include <@prefix@.h>

#include <string.h>

#include "test_@prefix@.h"

void setup() {
  static int8_t output[@PREFIX@_OUTPUT_SIZE];
  int equal = 0;
  Serial.begin(115200);
  for (int test = 0; test < NUM_TESTS; ++test) {
    @prefix@_invoke(test_inputs + test * @PREFIX@_INPUT_SIZE, output);
    equal += !memcmp(output, test_outputs + test * @PREFIX@_OUTPUT_SIZE,
                     @PREFIX@_OUTPUT_SIZE);
  }
  Serial.print(equal);
  Serial.print(" of ");
  Serial.print(NUM_TESTS);
  Serial.println(" inputs give the expected bytes");
}

void loop() {}
