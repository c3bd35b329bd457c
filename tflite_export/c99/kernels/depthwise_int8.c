static void depthwise_int8_@FINISH@(const depthwise_t *d, const window_t *w,
                                    const int8_t *input, int8_t *outside,
                                    int8_t *output) {
  const int8_t *taps[MAX_TAPS];
  const int32_t positions = w->out_height * w->out_width;
  const int32_t count = w->kernel_height * w->kernel_width;
  const int32_t outputs = w->channels * d->multiplier;
  const int32_t fours = d->multiplier == 1 ? outputs - outputs % 4 : 0;
  int32_t position, channel, tap;
  memset(outside, (int)w->zero_point, (size_t)w->channels);
  for (position = 0; position < positions; ++position) {
    find_taps(w, input, position, outside, taps);
    for (channel = 0; channel < fours; channel += 4) {
      const int32_t *const bias = d->bias + channel;
      const int8_t *weights = d->weights + channel;
      int32_t first = bias[0], second = bias[1], third = bias[2], fourth = bias[3];
      for (tap = 0; tap < count; ++tap) {
        const int8_t *const values = taps[tap] + channel;
#if defined(HAS_SIMD)
        const uint32_t x = load_word(values), v = load_word(weights);
        const int16x2_t x_even = EVEN_BYTES(x), x_odd = ODD_BYTES(x);
        const int16x2_t v_even = EVEN_BYTES(v), v_odd = ODD_BYTES(v);
        first = __smlabb(x_even, v_even, first);
        second = __smlabb(x_odd, v_odd, second);
        third = __smlatt(x_even, v_even, third);
        fourth = __smlatt(x_odd, v_odd, fourth);
#else
        first += values[0] * weights[0];
        second += values[1] * weights[1];
        third += values[2] * weights[2];
        fourth += values[3] * weights[3];
#endif
        weights += outputs;
      }
      output[0] = finish_@FINISH@(d->scaling, first, channel);
      output[1] = finish_@FINISH@(d->scaling, second, channel + 1);
      output[2] = finish_@FINISH@(d->scaling, third, channel + 2);
      output[3] = finish_@FINISH@(d->scaling, fourth, channel + 3);
      output += 4;
    }
    for (; channel < outputs; ++channel) {
      const int32_t source = channel / d->multiplier;
      int32_t sum = d->bias[channel];
      for (tap = 0; tap < count; ++tap) {
        sum += taps[tap][source] * d->weights[tap * outputs + channel];
      }
      *output++ = finish_@FINISH@(d->scaling, sum, channel);
    }
  }
}
