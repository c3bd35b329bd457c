/* Two output channels at two positions, added to `first` and `second`; the weights of
   the next two channels. */
static inline const uint32_t *dot_@WEIGHTS@(const uint32_t *columns,
                                            const uint32_t *end,
                                            const uint32_t *weights, int32_t first[2],
                                            int32_t second[2]) {
  uint32_t at_first[2] = {0, 0}, at_second[2] = {0, 0};
  do {
    uint32_t x[2], y[2], words[WORDS_@WEIGHTS@];
    take_two(&columns, x);
    take_two(&columns, y);
    take_@WEIGHTS@(&weights, words);
    multiply_@WEIGHTS@(x, words, at_first);
    multiply_@WEIGHTS@(y, words, at_second);
  } while (columns != end);
  add_sums_@WEIGHTS@(at_first, first);
  add_sums_@WEIGHTS@(at_second, second);
  return weights;
}
