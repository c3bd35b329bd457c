// The network gives what the reference kernels give, byte by byte.
#include <stdio.h>
#include <string.h>

#include "model_data.h"
#include "model_operators.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/schema/schema_generated.h"
#include "test_vectors.h"

alignas(16) static uint8_t arena[MODEL_ARENA_SIZE];

int main() {
  ModelOperators operators;
  if (AddModelOperators(operators) != kTfLiteOk) return 2;
  tflite::MicroInterpreter interpreter(tflite::GetModel(kModel), operators, arena,
                                       sizeof(arena));
  if (interpreter.AllocateTensors() != kTfLiteOk) return 2;
  int failed = 0;
  for (int test = 0; test < NUM_TESTS; ++test) {
    memcpy(interpreter.input(0)->data.int8, test_inputs + test * MODEL_INPUT_SIZE,
           MODEL_INPUT_SIZE);
    const int8_t* expected = test_outputs + test * MODEL_OUTPUT_SIZE;
    if (interpreter.Invoke() != kTfLiteOk ||
        memcmp(interpreter.output(0)->data.int8, expected, MODEL_OUTPUT_SIZE) != 0) {
      printf("input %d: other outputs\n", test);
      ++failed;
    }
  }
  printf("%d of %d inputs give the expected bytes\n", NUM_TESTS - failed, NUM_TESTS);
  printf("the arena took %u bytes\n",
         static_cast<unsigned int>(interpreter.arena_used_bytes()));
  return failed != 0;
}
