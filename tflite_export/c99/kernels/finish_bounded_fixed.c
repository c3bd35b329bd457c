static inline int32_t finish_bounded_fixed(const scaling_t *s, int32_t sum,
                                           const bounded_fixed_channel_t *channel) {
  return within(s, quick_fixed(s, sum, channel->mantissa, channel->exponent));
}
