/* Weights of nine taps, four bits each, lower ones first, as pairs of neighbours in a row:
   left and middle, middle and right. */
#define NINE_BYTES_int4 5

static inline int32_t four_bits(const uint8_t *bytes, int32_t i) {
  return (int32_t)((uint32_t)bytes[i / 2] << (i % 2 ? 24 : 28)) >> 28;
}

static inline void take_nine_int4(const uint8_t *bytes, uint32_t pairs[6]) {
  int32_t i;
  for (i = 0; i < 3; ++i) {
    const int32_t middle = four_bits(bytes, 3 * i + 1);
    pairs[2 * i] = pair(four_bits(bytes, 3 * i), middle);
    pairs[2 * i + 1] = pair(middle, four_bits(bytes, 3 * i + 2));
  }
}
