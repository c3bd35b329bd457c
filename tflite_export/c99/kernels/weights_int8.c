/* Weights of a byte each. */
static inline int32_t bytes_int8(int32_t count) {
  return count;
}

static inline int32_t weight_int8(const int8_t *weights, int32_t index) {
  return weights[index];
}

/* Adds four values times their weights to four sums. */
static inline void add_four_int8(const int8_t *values, const int8_t *weights,
                                 int32_t sums[4]) {
#if defined(HAS_SIMD)
  const uint32_t x = load_word(values), v = load_word(weights);
  const int16x2_t x_even = EVEN_BYTES(x), x_odd = ODD_BYTES(x);
  const int16x2_t v_even = EVEN_BYTES(v), v_odd = ODD_BYTES(v);
  sums[0] = __smlabb(x_even, v_even, sums[0]);
  sums[1] = __smlabb(x_odd, v_odd, sums[1]);
  sums[2] = __smlatt(x_even, v_even, sums[2]);
  sums[3] = __smlatt(x_odd, v_odd, sums[3]);
#else
  sums[0] += values[0] * weights[0];
  sums[1] += values[1] * weights[1];
  sums[2] += values[2] * weights[2];
  sums[3] += values[3] * weights[3];
#endif
}

static inline int32_t sum_int8(int32_t sum) {
  return sum;
}
