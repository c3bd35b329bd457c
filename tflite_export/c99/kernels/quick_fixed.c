/* The same, the zero point included, where exponents are negative and ties go up. */
static inline int32_t quick_fixed(const scaling_t *s, int32_t sum, int32_t mantissa,
                                  int32_t exponent) {
  const int64_t product = (int64_t)sum * mantissa;
  const int32_t value = (int32_t)((product + ((int64_t)1 << 30)) >> 31);
  /* One bit less than the whole shift, which the exponent has as its complement. */
  return (((value >> ~exponent) + 1) >> 1) + s->zero_point;
}
