/* One row of inputs as they lie. */
static void dense_@WEIGHTS@_@FINISH@(const linear_t *l, const int8_t *input,
                                    int8_t *output) {
  const scaling_t s = *l->scaling;
  const @FINISH@_channel_t *channel = l->channels;
  const @FINISH@_channel_t *const last = channel + l->outputs - 1;
  const int32_t left_over = l->inputs % 4;
  const int8_t *const whole = input + (l->inputs - left_over);
  const uint32_t *weights = l->weights;
  uint32_t rest[2] = {0, 0};
  if (left_over) {
    take_rest(whole, left_over, rest);
  }
  for (; channel <= last; channel += 2) {
    const int8_t *values = input;
    int32_t sums[2];
    sums[0] = channel[0].bias;
    sums[1] = channel[1].bias;
    do {
      const int32_t left = (int32_t)(whole - values);
      const int8_t *const end = values + (left < MAX_SUMMED ? left : MAX_SUMMED);
      uint32_t part[2] = {0, 0};
      for (; values != end; values += 4) {
        uint32_t pairs[2], words[WORDS_@WEIGHTS@];
        take_four(values, pairs);
        take_@WEIGHTS@(&weights, words);
        multiply_@WEIGHTS@(pairs, words, part);
      }
      add_sums_@WEIGHTS@(part, sums);
    } while (values != whole);
    if (left_over) {
      uint32_t part[2] = {0, 0}, words[WORDS_@WEIGHTS@];
      take_@WEIGHTS@(&weights, words);
      multiply_@WEIGHTS@(rest, words, part);
      add_sums_@WEIGHTS@(part, sums);
    }
    *output++ = (int8_t)finish_@FINISH@(&s, sums[0], channel);
    if (channel != last) {
      *output++ = (int8_t)finish_@FINISH@(&s, sums[1], channel + 1);
    }
  }
}
