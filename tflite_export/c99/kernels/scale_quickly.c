#if defined(NO_FLOATS)
/* The same of multipliers from 2^-31 to 1, with one rounding. The others matter where the
   exact value is less than 2^-14 from a tie, or beyond all bounds. */
static inline int32_t scale_quickly(int32_t sum, float multiplier) {
  const uint32_t size = sum < 0 ? 0u - (uint32_t)sum : (uint32_t)sum;
  uint32_t bits, upper, whole, fraction;
  uint64_t product;
  int32_t shift;
  memcpy(&bits, &multiplier, sizeof bits);
  product = (uint64_t)size * (bits << 8 | 0x80000000u);
  upper = (uint32_t)(product >> 32);
  shift = 126 - (int32_t)(bits >> 23);
  whole = upper >> shift;
  fraction = upper << 1 << (31 - shift) | (uint32_t)product >> shift;
  if (fraction - 0x7FFC0000u < 0x80000u) {
    return scale(sum, multiplier);
  }
  whole += fraction >> 31;
  return sum < 0 ? -(int32_t)whole : (int32_t)whole;
}
#endif
