/* The same of so many inputs that sums are taken in parts, added to biases. */
static inline const uint32_t *dot_row_long_@WEIGHTS@(const int8_t *values,
                                                     const int8_t *end,
                                                     const uint32_t *weights,
                                                     int32_t outputs[2]) {
  do {
    const int32_t left = (int32_t)(end - values);
    const int32_t part = left < MAX_SUMMED ? left : MAX_SUMMED;
    int32_t sums[2] = {0, 0};
    weights = dot_row_@WEIGHTS@(values, values + part, weights, sums);
    outputs[0] += sums[0];
    outputs[1] += sums[1];
    values += part;
  } while (values != end);
  return weights;
}
