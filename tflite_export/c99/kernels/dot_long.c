/* The same of so many inputs that sums are taken in parts. */
static inline const uint32_t *dot_long_@WEIGHTS@(const uint32_t *columns,
                                                 const uint32_t *end,
                                                 const uint32_t *weights,
                                                 int32_t first[2], int32_t second[2]) {
  while (end - columns > MAX_SUMMED) {
    const uint32_t *const part = columns + MAX_SUMMED;
    weights = dot_@WEIGHTS@(columns, part, weights, first, second);
    columns = part;
  }
  return dot_@WEIGHTS@(columns, end, weights, first, second);
}
