/* `scratch` has the weights unpacked, and then what lies outside the image. */
static void depthwise_@WEIGHTS@_@FINISH@(const depthwise_t *d, const window_t *w,
                                         const int8_t *input, uint32_t *scratch,
                                         int8_t *output) {
  const scaling_t s = *d->scaling;
  const int8_t *taps[MAX_TAPS];
  const int32_t positions = w->out_height * w->out_width;
  const int32_t count = w->kernel_height * w->kernel_width;
  const int32_t multiplier = d->multiplier, outputs = w->channels * multiplier;
  const int32_t fours = (outputs + 3) / 4;
  int8_t *const outside = (int8_t *)(scratch + 2 * count * fours);
  int32_t position, tap, i;
  unpack_@WEIGHTS@(d->weights, count, fours, scratch);
  memset(outside, (int)w->zero_point, (size_t)w->channels);
  for (position = 0; position < positions; ++position) {
    const @FINISH@_channel_t *channel = d->channels;
    const uint32_t *weights = scratch;
    find_taps(w, input, position, outside, taps);
    for (i = 0; multiplier == 1 && i < outputs - 3; i += 4) {
      const int8_t *const *place = taps;
      const int8_t *const *const end = taps + count;
      int32_t sums[4];
      sums[0] = channel[0].bias;
      sums[1] = channel[1].bias;
      sums[2] = channel[2].bias;
      sums[3] = channel[3].bias;
      do {
        uint32_t words[2];
        take_two(&weights, words);
        add_four(*place++ + i, words, sums);
      } while (place != end);
      output[0] = (int8_t)finish_@FINISH@(&s, sums[0], channel);
      output[1] = (int8_t)finish_@FINISH@(&s, sums[1], channel + 1);
      output[2] = (int8_t)finish_@FINISH@(&s, sums[2], channel + 2);
      output[3] = (int8_t)finish_@FINISH@(&s, sums[3], channel + 3);
      channel += 4;
      output += 4;
    }
    for (; i < outputs; ++i) {
      const int32_t source = i / multiplier;
      int32_t sum = channel->bias;
      weights = scratch + i / 4 * 2 * count;
      for (tap = 0; tap < count; ++tap) {
        sum += taps[tap][source] * weight_of(weights, i);
        weights += 2;
      }
      *output++ = (int8_t)finish_@FINISH@(&s, sum, channel++);
    }
  }
}
