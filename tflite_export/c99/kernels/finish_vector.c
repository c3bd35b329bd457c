#if HAS_VECTORS
/* The quick way of finishing with floats for four sums; bounds may be all of int8. */
static inline int32x4_t finish_vector(const scaling_t *s, int32x4_t sums,
                                      float32x4_t multipliers) {
  float32x4_t moved = vmulq_f32(vcvtq_f32_s32(sums), multipliers);
  int32x4_t bits;
  __asm__("" : "+w"(moved)); /* rounded before the sum */
  moved = vaddq_n_f32(moved, 12582912.0f);
  bits = vaddq_n_s32(vreinterpretq_s32_f32(moved), s->from_bits);
  bits = vmaxq_s32(bits, vdupq_n_s32(s->lowest));
  return vminq_s32(bits, vdupq_n_s32(s->highest));
}
#endif
