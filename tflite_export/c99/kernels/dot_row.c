/* Sums of two output channels of one row, up to its end, from what they begin with; the
   weights of the next two. */
static inline const uint32_t *dot_row_@WEIGHTS@(const int8_t *values, const int8_t *end,
                                                const uint32_t *weights,
                                                int32_t outputs[2]) {
  uint32_t sums[2];
  begin_@WEIGHTS@(outputs, sums);
  do {
    uint32_t pairs[2], words[WORDS_@WEIGHTS@];
    take_four(values, pairs);
    take_@WEIGHTS@(&weights, words);
    multiply_@WEIGHTS@(pairs, words, sums);
    values += 4;
  } while (values != end);
  end_@WEIGHTS@(sums, outputs);
  return weights;
}
