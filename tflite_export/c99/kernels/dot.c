/* Sums of two output channels at two positions, the columns `x`, up to its end, and `y`,
   from what they begin with; the weights of the next two channels. */
static inline const uint32_t *dot_@WEIGHTS@(const uint32_t *x, const uint32_t *y,
                                            const uint32_t *end,
                                            const uint32_t *weights, int32_t first[2],
                                            int32_t second[2]) {
  uint32_t at_first[2], at_second[2];
  begin_@WEIGHTS@(first, at_first);
  begin_@WEIGHTS@(second, at_second);
#if HAS_VECTORS
  for (; end - x >= VECTOR_WORDS_@WEIGHTS@; x += VECTOR_WORDS_@WEIGHTS@) {
    weights = multiply_vectors_@WEIGHTS@(x, y, weights, at_first, at_second);
    y += VECTOR_WORDS_@WEIGHTS@;
  }
#endif
  if (!HAS_VECTORS || x != end) {
    do {
      uint32_t values[2], words[WORDS_@WEIGHTS@];
      take_@WEIGHTS@(&weights, words);
      take_two(&x, values);
      multiply_@WEIGHTS@(values, words, at_first);
      take_two(&y, values);
      multiply_@WEIGHTS@(values, words, at_second);
    } while (x != end);
  }
  end_@WEIGHTS@(at_first, first);
  end_@WEIGHTS@(at_second, second);
  return weights;
}
