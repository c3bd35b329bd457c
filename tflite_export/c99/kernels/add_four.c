/* Adds four values times their weights, pairs of 0 and 2, 1 and 3, to four sums. */
static inline void add_four(const int8_t *values, const uint32_t weights[2],
                            int32_t sums[4]) {
#if defined(HAS_SIMD)
  uint32_t pairs[2];
  take_four(values, pairs);
  sums[0] = __smlabb((int32_t)pairs[0], (int32_t)weights[0], sums[0]);
  sums[1] = __smlabb((int32_t)pairs[1], (int32_t)weights[1], sums[1]);
  sums[2] = __smlatt((int32_t)pairs[0], (int32_t)weights[0], sums[2]);
  sums[3] = __smlatt((int32_t)pairs[1], (int32_t)weights[1], sums[3]);
#else
  sums[0] += values[0] * lower(weights[0]);
  sums[1] += values[1] * lower(weights[1]);
  sums[2] += values[2] * upper(weights[0]);
  sums[3] += values[3] * upper(weights[1]);
#endif
}

/* The weight of one channel of them. */
static inline int32_t weight_of(const uint32_t weights[2], int32_t channel) {
  const uint32_t both = weights[channel % 2];
  return channel & 2 ? (int32_t)both >> 16 : (int16_t)(uint16_t)both;
}
