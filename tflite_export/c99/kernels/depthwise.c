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
  const int32_t *const bias = d->bias;
  int8_t *const outside = (int8_t *)(scratch + 2 * count * fours);
  int32_t position, channel, tap;
  unpack_@WEIGHTS@(d->weights, count, fours, scratch);
  memset(outside, (int)w->zero_point, (size_t)w->channels);
  for (position = 0; position < positions; ++position) {
    const uint32_t *weights = scratch;
    find_taps(w, input, position, outside, taps);
    channel = 0;
    if (multiplier == 1) {
      for (; channel < outputs - 3; channel += 4) {
        const int8_t *const *place = taps;
        const uint32_t *const end = weights + 2 * count;
        int32_t sums[4];
        sums[0] = bias[channel];
        sums[1] = bias[channel + 1];
        sums[2] = bias[channel + 2];
        sums[3] = bias[channel + 3];
        for (; weights != end; weights += 2) {
          add_four(*place++ + channel, weights, sums);
        }
        output[0] = finish_@FINISH@(&s, sums[0], channel);
        output[1] = finish_@FINISH@(&s, sums[1], channel + 1);
        output[2] = finish_@FINISH@(&s, sums[2], channel + 2);
        output[3] = finish_@FINISH@(&s, sums[3], channel + 3);
        output += 4;
      }
    }
    for (; channel < outputs; ++channel) {
      const int32_t source = channel / multiplier;
      int32_t sum = bias[channel];
      weights = scratch + channel / 4 * 2 * count;
      for (tap = 0; tap < count; ++tap) {
        sum += taps[tap][source] * weight_of(weights, channel);
        weights += 2;
      }
      *output++ = finish_@FINISH@(&s, sum, channel);
    }
  }
}
