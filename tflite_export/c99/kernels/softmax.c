/* Probabilities of logits: exponentials of differences from a table, 2^8 levels. */
static void softmax(const float *table, const int8_t *input, int32_t count,
                    int8_t *output) {
  int32_t i, largest_logit = -128;
  volatile float sum = 0.0f;
  float factor;
  for (i = 0; i < count; ++i) {
    largest_logit = input[i] > largest_logit ? input[i] : largest_logit;
  }
  for (i = 0; i < count; ++i) {
    sum = sum + table[largest_logit - input[i]];
  }
  factor = sum * (1.0f / 256.0f);
  factor = 1.0f / factor;
  for (i = 0; i < count; ++i) {
    const float share = table[largest_logit - input[i]] * factor;
    int32_t level = (int32_t)share;
    level += share - (float)level >= 0.5f;
    output[i] = (int8_t)(level > 255 ? 127 : level - 128);
  }
}
