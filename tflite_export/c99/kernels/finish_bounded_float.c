#define VECTORS_bounded_float 1

static inline int32_t finish_bounded_float(const scaling_t *s, int32_t sum,
                                           const bounded_float_channel_t *channel) {
  return within(s, quick_float(s, sum, channel->multiplier));
}
