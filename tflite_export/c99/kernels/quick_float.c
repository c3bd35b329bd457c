/* The same, the zero point included, where no product is near 2^22: below, the bits of a
   float with 1.5 * 2^23 added are those of its rounded value beside a constant. */
static inline int32_t quick_float(const scaling_t *s, int32_t sum, float multiplier) {
#if defined(NO_FLOATS)
  return scale_quickly(sum, multiplier) + s->zero_point;
#else
  const float moved = rounded((float)sum * multiplier) + 12582912.0f;
  int32_t bits;
  memcpy(&bits, &moved, sizeof bits);
  return bits + s->from_bits;
#endif
}
