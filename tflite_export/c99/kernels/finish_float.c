/* The sum times a float32 multiplier, ties to even. */
static inline int32_t finish_float(const scaling_t *s, int32_t sum,
                                   const float_channel_t *channel) {
#if defined(NO_FLOATS)
  const int32_t low = (int32_t)s->low, high = (int32_t)s->high;
  int32_t result = scale(sum, channel->multiplier);
  result = result < low ? low : result;
  result = result > high ? high : result;
  return result + s->zero_point;
#else
  const float product = rounded((float)sum * channel->multiplier);
  return round_within(product, s->zero_point, s->low, s->high);
#endif
}
