/* One row of inputs as they lie. */
static void dense_@WEIGHTS@_@FINISH@(const linear_t *l, const int8_t *input,
                                    int8_t *output) {
  const scaling_t s = *l->scaling;
  const int32_t last = l->outputs - 1, left_over = l->inputs % 4;
  const int8_t *const whole = input + (l->inputs - left_over);
  const uint32_t *weights = l->weights;
  uint32_t rest[2] = {0, 0};
  int32_t channel;
  if (left_over) {
    take_rest(whole, left_over, rest);
  }
  for (channel = 0; channel <= last; channel += 2) {
    const int8_t *values = input;
    int32_t sums[2];
    sums[0] = l->bias[channel];
    sums[1] = l->bias[channel + 1];
    do {
      const int32_t left = (int32_t)(whole - values);
      const int8_t *const end = values + (left < MAX_SUMMED ? left : MAX_SUMMED);
      uint32_t part[2] = {0, 0};
      for (; values != end; values += 4) {
        uint32_t pairs[2];
        take_four(values, pairs);
        multiply_@WEIGHTS@(pairs, weights, part);
        weights += WORDS_@WEIGHTS@;
      }
      add_sums_@WEIGHTS@(part, sums);
    } while (values != whole);
    if (left_over) {
      uint32_t part[2] = {0, 0};
      multiply_@WEIGHTS@(rest, weights, part);
      weights += WORDS_@WEIGHTS@;
      add_sums_@WEIGHTS@(part, sums);
    }
    *output++ = finish_@FINISH@(&s, sums[0], channel);
    if (channel != last) {
      *output++ = finish_@FINISH@(&s, sums[1], channel + 1);
    }
  }
}
