#if HAS_VECTORS
#define VECTOR_WORDS_int8 4 /* of a column */

/* Products of eight inputs with weights of two output channels, as they lie. */
static inline const uint32_t *multiply_vectors_int8(const uint32_t *x, const uint32_t *y,
                                                    const uint32_t *weights,
                                                    uint32_t at_x[2],
                                                    uint32_t at_y[2]) {
  const int16x8_t words = vreinterpretq_s16_u32(vld1q_u32(weights));
  const int16x8_t bytes = vmovlbq_s8(vreinterpretq_s8_s16(words));
  const int16x8_t first = vreinterpretq_s16_u32(vld1q_u32(x));
  const int16x8_t second = vreinterpretq_s16_u32(vld1q_u32(y));
  at_x[0] = (uint32_t)vmladavaq_s16((int32_t)at_x[0], first, words);
  at_x[1] = (uint32_t)vmladavaq_s16((int32_t)at_x[1], first, bytes);
  at_y[0] = (uint32_t)vmladavaq_s16((int32_t)at_y[0], second, words);
  at_y[1] = (uint32_t)vmladavaq_s16((int32_t)at_y[1], second, bytes);
  return weights + 4;
}
#endif
