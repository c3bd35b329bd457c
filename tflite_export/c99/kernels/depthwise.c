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
#if HAS_VECTORS
  __asm__ volatile("" : : : "memory"); /* vectors take words as pairs */
#endif
  memset(outside, (int)w->zero_point, (size_t)w->channels);
  for (position = 0; position < positions; ++position) {
    const @FINISH@_channel_t *channel = d->channels;
    const uint32_t *weights = scratch;
    find_taps(w, input, position, outside, taps);
    for (i = 0; multiplier == 1 && i < outputs - 3; i += 4) {
      weights = four_channels_@FINISH@(&s, channel, taps, count, i, weights, output);
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
