/* Two output channels at two positions, added to `first` and `second`. */
static inline void dot_@WEIGHTS@(const uint32_t *columns, const uint32_t *end,
                                 const uint32_t *weights, int32_t first[2],
                                 int32_t second[2]) {
  uint32_t at_first[2] = {0, 0}, at_second[2] = {0, 0};
  do {
    multiply_@WEIGHTS@(columns, weights, at_first);
    multiply_@WEIGHTS@(columns + 2, weights, at_second);
    columns += 4;
    weights += WORDS_@WEIGHTS@;
  } while (columns != end);
  add_sums_@WEIGHTS@(at_first, first);
  add_sums_@WEIGHTS@(at_second, second);
}
