/* A dense layer, or a convolution of single positions: inputs are rows as they lie. */
static void rows(linear_rows_t linear, const linear_t *l, const int8_t *input,
                 int32_t count, int8_t *output) {
  int32_t row;
  for (row = 0; row < count; row += 2) {
    /* A last row without a second one is computed twice. */
    const int32_t next = row + 1 < count ? row + 1 : row;
    linear(l, 0, input + row * l->inputs, input + next * l->inputs,
           output + row * l->outputs, output + next * l->outputs);
  }
}
