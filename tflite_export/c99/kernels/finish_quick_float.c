#define VECTORS_quick_float 1

static inline int32_t finish_quick_float(const scaling_t *s, int32_t sum,
                                         const quick_float_channel_t *channel) {
  return saturate(quick_float(s, sum, channel->multiplier));
}
