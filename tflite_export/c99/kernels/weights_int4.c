/* Two weights in a byte, the first one in its lower half. */
static inline int32_t bytes_int4(int32_t count) {
  return (count + 1) / 2;
}

static inline int32_t weight_int4(const int8_t *weights, int32_t index) {
  const uint32_t both = (uint32_t)(int32_t)weights[index / 2];
  return (int32_t)(index % 2 ? both << 24 : both << 28) >> 28;
}

/* Adds four values times 16 times their weights to four sums. */
static inline void add_four_int4(const int8_t *values, const int8_t *weights,
                                 int32_t sums[4]) {
#if defined(HAS_SIMD)
  const uint32_t low = (uint8_t)weights[0], high = (uint8_t)weights[1];
  const uint32_t x = load_word(values), both = low | high << 16;
  const int16x2_t x_even = EVEN_BYTES(x), x_odd = ODD_BYTES(x);
  const int16x2_t v_even = EVEN_BYTES(both << 4);
  const int16x2_t v_odd = EVEN_BYTES(both & 0x00F000F0u);
  sums[0] = __smlabb(x_even, v_even, sums[0]);
  sums[1] = __smlabb(x_odd, v_odd, sums[1]);
  sums[2] = __smlatt(x_even, v_even, sums[2]);
  sums[3] = __smlatt(x_odd, v_odd, sums[3]);
#else
  sums[0] += values[0] * weight_int4(weights, 0) * 16;
  sums[1] += values[1] * weight_int4(weights, 1) * 16;
  sums[2] += values[2] * weight_int4(weights, 2) * 16;
  sums[3] += values[3] * weight_int4(weights, 3) * 16;
#endif
}

static inline int32_t sum_int4(int32_t sum) {
  return sum >> 4;
}
