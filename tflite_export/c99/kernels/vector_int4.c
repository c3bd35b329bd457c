#if HAS_VECTORS
#define VECTOR_WORDS_int4 8 /* of a column */

/* Products of sixteen inputs with weights of two output channels, as they lie. */
static inline const uint32_t *multiply_vectors_int4(const uint32_t *x, const uint32_t *y,
                                                    const uint32_t *weights,
                                                    uint32_t at_x[2],
                                                    uint32_t at_y[2]) {
  const uint16x8_t words = vreinterpretq_u16_u32(vld1q_u32(weights));
  const uint16x8_t top = vdupq_n_u16(0xF000);
  /* First pairs of fours, and second ones. */
  const uint32x4x2_t first = vld2q_u32(x), second = vld2q_u32(y);
  int32_t i;
  UNROLLED
  for (i = 0; i < 2; ++i) {
    const uint16x8_t moved = i ? vshlq_n_u16(words, 8) : words;
    const int16x8_t a = vreinterpretq_s16_u16(vandq_u16(moved, top));
    const int16x8_t b = vreinterpretq_s16_u16(vandq_u16(vshlq_n_u16(moved, 4), top));
    const int16x8_t at_first = vreinterpretq_s16_u32(first.val[i]);
    const int16x8_t at_second = vreinterpretq_s16_u32(second.val[i]);
    at_x[0] = (uint32_t)vmladavaq_s16((int32_t)at_x[0], at_first, a);
    at_x[1] = (uint32_t)vmladavaq_s16((int32_t)at_x[1], at_first, b);
    at_y[0] = (uint32_t)vmladavaq_s16((int32_t)at_y[0], at_second, a);
    at_y[1] = (uint32_t)vmladavaq_s16((int32_t)at_y[1], at_second, b);
  }
  return weights + 4;
}
#endif
