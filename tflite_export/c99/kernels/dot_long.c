/* The same of so many inputs that sums are taken in parts. */
static inline void dot_long_@WEIGHTS@(const uint32_t *columns, const uint32_t *end,
                                      const uint32_t *weights, int32_t first[2],
                                      int32_t second[2]) {
  while (end - columns > MAX_SUMMED) {
    dot_@WEIGHTS@(columns, columns + MAX_SUMMED, weights, first, second);
    columns += MAX_SUMMED;
    weights += MAX_SUMMED / 4 * WORDS_@WEIGHTS@;
  }
  dot_@WEIGHTS@(columns, end, weights, first, second);
}
