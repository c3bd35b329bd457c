/* Ties to even. With 1.5 * 2^23 added, the bits of a float are those of its rounded
   value beside a constant; the bounds keep the sum in that range. */
static inline int8_t round_within(float value, int32_t zero_point, float low,
                                  float high) {
  int32_t bits;
  value = value < low ? low : value;
  value = value > high ? high : value;
  value += 12582912.0f;
  memcpy(&bits, &value, sizeof bits);
  return (int8_t)(bits - 0x4B400000 + zero_point);
}
