/* Sums of stored values times a float32 multiplier, and a float32 bias: means of
   `count` values each, which lie `step` apart, of rows that lie side by side or of
   channels of all positions. */
typedef struct {
  float multiplier, bias;
  int32_t outputs, between; /* values, and how far apart they begin */
  int32_t count, step;
} average_t;

static void average(const average_t *a, const int8_t *input, int8_t *output) {
  int32_t i, j;
  for (i = 0; i < a->outputs; ++i) {
    const int8_t *value = input + i * a->between;
    int32_t sum = 0;
    for (j = 0; j < a->count; ++j) {
      sum += *value;
      value += a->step;
    }
    output[i] = round_within(rounded((float)sum * a->multiplier) + a->bias, 0, -128.0f,
                             127.0f);
  }
}
