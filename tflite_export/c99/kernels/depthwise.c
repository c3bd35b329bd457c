static void depthwise_@WEIGHTS@_@FINISH@(const depthwise_t *d, const window_t *w,
                                         const int8_t *input, int8_t *outside,
                                         int8_t *output) {
  const int8_t *taps[MAX_TAPS];
  const int32_t positions = w->out_height * w->out_width;
  const int32_t count = w->kernel_height * w->kernel_width;
  const int32_t outputs = w->channels * d->multiplier;
  const int32_t stride = bytes_@WEIGHTS@(outputs);
  const int32_t fours = d->multiplier == 1 ? outputs - outputs % 4 : 0;
  int32_t position, channel, tap, i;
  memset(outside, (int)w->zero_point, (size_t)w->channels);
  for (position = 0; position < positions; ++position) {
    find_taps(w, input, position, outside, taps);
    for (channel = 0; channel < fours; channel += 4) {
      const int8_t *weights = d->weights + bytes_@WEIGHTS@(channel);
      int32_t sums[4] = {0, 0, 0, 0};
      for (tap = 0; tap < count; ++tap) {
        add_four_@WEIGHTS@(taps[tap] + channel, weights, sums);
        weights += stride;
      }
      for (i = 0; i < 4; ++i) {
        const int32_t sum = d->bias[channel + i] + sum_@WEIGHTS@(sums[i]);
        *output++ = finish_@FINISH@(d->scaling, sum, channel + i);
      }
    }
    for (; channel < outputs; ++channel) {
      const int32_t source = channel / d->multiplier;
      int32_t sum = d->bias[channel];
      for (tap = 0; tap < count; ++tap) {
        sum += taps[tap][source] * weight_@WEIGHTS@(d->weights + tap * stride, channel);
      }
      *output++ = finish_@FINISH@(d->scaling, sum, channel);
    }
  }
}
