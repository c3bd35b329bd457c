/* Weights of nine taps, a byte each, as pairs of neighbours in a row: left and middle,
   middle and right. */
#define NINE_BYTES_int8 9

static inline void take_nine_int8(const uint8_t *bytes, uint32_t pairs[6]) {
  int32_t i;
  for (i = 0; i < 3; ++i) {
    const int32_t middle = (int8_t)bytes[3 * i + 1];
    pairs[2 * i] = pair((int8_t)bytes[3 * i], middle);
    pairs[2 * i + 1] = pair(middle, (int8_t)bytes[3 * i + 2]);
  }
}
