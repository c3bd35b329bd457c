/* A function of single values: outputs of -128 ... 127. May be done in place. */
static void look_up(const int8_t *table, const int8_t *input, int32_t count,
                    int8_t *output) {
  int32_t i;
  for (i = 0; i < count; ++i) {
    output[i] = table[input[i] + 128];
  }
}
