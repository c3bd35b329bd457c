/* Four bytes as two pairs: 0 and 2, 1 and 3. */
static inline void take_four(const int8_t *values, uint32_t pairs[2]) {
#if defined(HAS_SIMD)
  uint32_t word;
  memcpy(&word, values, 4);
  pairs[0] = even_bytes(word);
  pairs[1] = odd_bytes(word);
#else
  pairs[0] = pair(values[0], values[2]);
  pairs[1] = pair(values[1], values[3]);
#endif
}

/* The same of up to three that are left over, and zeros. */
static inline void take_rest(const int8_t *values, int32_t count, uint32_t pairs[2]) {
  pairs[0] = pair(values[0], count > 2 ? values[2] : 0);
  pairs[1] = pair(count > 1 ? values[1] : 0, 0);
}
