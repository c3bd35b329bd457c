/* The sum times mantissa * 2^(exponent - 31), rounded before and after the shift to
   the right: ties go up, or in the second rounding away from zero. */
static inline int32_t finish_fixed(const scaling_t *s, int32_t sum,
                                   const fixed_channel_t *channel) {
  const int32_t low = (int32_t)s->low, high = (int32_t)s->high;
  int64_t product = (int64_t)sum * channel->mantissa, value;
  if (channel->exponent > 0) {
    product *= (int64_t)1 << channel->exponent;
  }
  value = (product + ((int64_t)1 << 30)) >> 31;
  if (channel->exponent < 0) {
    const int64_t half = (int64_t)1 << (-channel->exponent - 1);
    const int64_t down = channel->away && value < 0 ? 1 : 0;
    value = (value + half - down) >> -channel->exponent;
  }
  value = value < low ? low : value;
  value = value > high ? high : value;
  return (int32_t)value + s->zero_point;
}
