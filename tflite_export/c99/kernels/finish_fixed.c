/* The sum times mantissa * 2^(exponent - 31), rounded before and after the shift to
   the right: ties go up, or in the second rounding away from zero. */
static inline int8_t finish_fixed(const scaling_t *s, int32_t sum, int32_t channel) {
  const int32_t exponent = s->exponents[channel];
  const int32_t left = exponent > 0 ? exponent : 0;
  const int32_t right = exponent < 0 ? -exponent : 0;
  const int32_t low = (int32_t)s->low, high = (int32_t)s->high;
  const int64_t product = (int64_t)sum * ((int64_t)1 << left) * s->mantissas[channel];
  int64_t value = (product + ((int64_t)1 << 30)) >> 31;
  if (right > 0) {
    const int64_t half = (int64_t)1 << (right - 1);
    const int64_t down = channel >= s->first_away && value < 0 ? 1 : 0;
    value = (value + half - down) >> right;
  }
  if (value < low) {
    value = low;
  }
  if (value > high) {
    value = high;
  }
  return (int8_t)(value + s->zero_point);
}
