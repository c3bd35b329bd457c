/* A byte holds the weights of two output channels that follow each other, the first
   one in its lower half; each tap begins with a byte of its own. */
static void depthwise_int4_@FINISH@(const depthwise_t *d, const window_t *w,
                                    const int8_t *input, int8_t *outside,
                                    int8_t *output) {
  const int8_t *taps[MAX_TAPS];
  const int32_t positions = w->out_height * w->out_width;
  const int32_t count = w->kernel_height * w->kernel_width;
  const int32_t outputs = w->channels * d->multiplier;
  const int32_t stride = (outputs + 1) / 2;
  const int32_t fours = d->multiplier == 1 ? outputs - outputs % 4 : 0;
  int32_t position, channel, tap;
  memset(outside, (int)w->zero_point, (size_t)w->channels);
  for (position = 0; position < positions; ++position) {
    find_taps(w, input, position, outside, taps);
    for (channel = 0; channel < fours; channel += 4) {
      const int32_t *const bias = d->bias + channel;
      const int8_t *weights = d->weights + channel / 2;
      int32_t first = 0, second = 0, third = 0, fourth = 0;
      for (tap = 0; tap < count; ++tap) {
        const int8_t *const values = taps[tap] + channel;
        const uint32_t low = (uint8_t)weights[0], high = (uint8_t)weights[1];
#if defined(HAS_SIMD)
        const uint32_t x = load_word(values), both = low | high << 16;
        const int16x2_t x_even = EVEN_BYTES(x), x_odd = ODD_BYTES(x);
        /* 16 times what they are. */
        const int16x2_t v_even = EVEN_BYTES(both << 4);
        const int16x2_t v_odd = EVEN_BYTES(both & 0x00F000F0u);
        first = __smlabb(x_even, v_even, first);
        second = __smlabb(x_odd, v_odd, second);
        third = __smlatt(x_even, v_even, third);
        fourth = __smlatt(x_odd, v_odd, fourth);
#else
        first += values[0] * ((int32_t)(low << 28) >> 28);
        second += values[1] * ((int32_t)(low << 24) >> 28);
        third += values[2] * ((int32_t)(high << 28) >> 28);
        fourth += values[3] * ((int32_t)(high << 24) >> 28);
#endif
        weights += stride;
      }
#if defined(HAS_SIMD)
      first >>= 4;
      second >>= 4;
      third >>= 4;
      fourth >>= 4;
#endif
      output[0] = finish_@FINISH@(d->scaling, bias[0] + first, channel);
      output[1] = finish_@FINISH@(d->scaling, bias[1] + second, channel + 1);
      output[2] = finish_@FINISH@(d->scaling, bias[2] + third, channel + 2);
      output[3] = finish_@FINISH@(d->scaling, bias[3] + fourth, channel + 3);
      output += 4;
    }
    for (; channel < outputs; ++channel) {
      const int32_t source = channel / d->multiplier, odd = channel % 2;
      int32_t sum = d->bias[channel];
      for (tap = 0; tap < count; ++tap) {
        const int32_t both = d->weights[tap * stride + channel / 2];
        const int32_t lower = (int32_t)((uint32_t)both << 28) >> 28;
        sum += taps[tap][source] * (odd ? both >> 4 : lower);
      }
      *output++ = finish_@FINISH@(d->scaling, sum, channel);
    }
  }
}
