/* The same where no output is bounded, exponents are negative and all ties go up. */
static inline int8_t finish_quick_fixed(const scaling_t *s, int32_t sum,
                                        const quick_fixed_channel_t *channel) {
  const int64_t product = (int64_t)sum * channel->mantissa;
  const int32_t value = (int32_t)((product + ((int64_t)1 << 30)) >> 31);
  /* One bit less than the whole shift, which the exponent has as its complement. */
  const int32_t twice = value >> ~channel->exponent;
  return saturate(((twice + 1) >> 1) + s->zero_point);
}
