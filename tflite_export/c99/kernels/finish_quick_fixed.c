static inline int32_t finish_quick_fixed(const scaling_t *s, int32_t sum,
                                         const quick_fixed_channel_t *channel) {
  return saturate(quick_fixed(s, sum, channel->mantissa, channel->exponent));
}
