/* The sum times mantissa * 2^(exponent - 31), rounded before and after the shift to
   the right: ties go up, or in the second rounding away from zero. */
static inline int8_t finish_fixed(const scaling_t *s, int32_t sum, int32_t channel) {
  const int32_t exponent = s->exponents[channel];
  const int32_t low = (int32_t)s->low, high = (int32_t)s->high;
  int64_t product = (int64_t)sum * s->mantissas[channel], value;
  if (exponent > 0) {
    product *= (int64_t)1 << exponent;
  }
  value = (product + ((int64_t)1 << 30)) >> 31;
  if (exponent < 0) {
    const int64_t half = (int64_t)1 << (-exponent - 1);
    const int64_t down = channel >= s->first_away && value < 0 ? 1 : 0;
    value = (value + half - down) >> -exponent;
  }
  value = value < low ? low : value;
  value = value > high ? high : value;
  return (int8_t)(value + s->zero_point);
}
