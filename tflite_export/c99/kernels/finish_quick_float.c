/* The same where no output is bounded and none is near 2^22, below which the bits of a
   float with 1.5 * 2^23 added are those of its rounded value beside a constant. */
static inline int8_t finish_quick_float(const scaling_t *s, int32_t sum,
                                        const quick_float_channel_t *channel) {
#if defined(NO_FLOATS)
  return saturate(scale_quickly(sum, channel->multiplier) + s->zero_point);
#else
  const float product = rounded((float)sum * channel->multiplier);
  const float moved = product + 12582912.0f;
  int32_t bits;
  memcpy(&bits, &moved, sizeof bits);
  return saturate(bits + s->from_bits);
#endif
}
