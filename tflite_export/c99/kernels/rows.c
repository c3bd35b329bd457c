/* Convolutions of single positions: inputs are rows as they lie. */
static void rows(linear_rows_t linear, const linear_t *l, const int8_t *input,
                 int32_t count, uint32_t *columns, int8_t *output) {
  const int32_t inputs = l->inputs, outputs = l->outputs;
  uint32_t *const second = columns + (inputs + 3) / 4 * 2;
  int32_t row;
  for (row = 0; row < count; row += 2) {
    /* A last row without a second one is computed twice. */
    const int32_t next = row + 1 < count ? 1 : 0;
    widen(input, inputs, columns);
    widen(input + next * inputs, inputs, second);
    linear(l, 0, columns, output, output + next * outputs);
    input += 2 * inputs;
    output += 2 * outputs;
  }
}
