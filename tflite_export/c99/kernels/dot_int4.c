/* Two output channels at two positions: a byte holds a weight of each channel, the
   first one in its lower half. */
static void dot_int4(const int8_t *first, const int8_t *second, const int8_t *weights,
                     int32_t count, int32_t sums[4]) {
  int32_t a = 0, b = 0, c = 0, d = 0;
  const int8_t *const end = first + count;
#if defined(HAS_SIMD)
  /* Weights are taken as 16 times what they are. */
  const int8_t *const whole = end - count % 4;
  while (first != whole) {
    const uint32_t x = load_word(first), y = load_word(second);
    const int16x2_t x_even = EVEN_BYTES(x), x_odd = ODD_BYTES(x);
    const int16x2_t y_even = EVEN_BYTES(y), y_odd = ODD_BYTES(y);
    const uint32_t both = load_word(weights);
    const uint32_t lower = (both << 4) & 0xF0F0F0F0u, upper = both & 0xF0F0F0F0u;
    int16x2_t v = EVEN_BYTES(lower), w = EVEN_BYTES(upper);
    a = __smlad(x_even, v, a);
    b = __smlad(x_even, w, b);
    c = __smlad(y_even, v, c);
    d = __smlad(y_even, w, d);
    v = ODD_BYTES(lower);
    w = ODD_BYTES(upper);
    a = __smlad(x_odd, v, a);
    b = __smlad(x_odd, w, b);
    c = __smlad(y_odd, v, c);
    d = __smlad(y_odd, w, d);
    first += 4;
    second += 4;
    weights += 4;
  }
  a >>= 4;
  b >>= 4;
  c >>= 4;
  d >>= 4;
#endif
  while (first != end) {
    const int32_t x = *first++, y = *second++;
    const int32_t both = *weights++;
    const int32_t v = (int32_t)((uint32_t)both << 28) >> 28;
    const int32_t w = both >> 4;
    a += x * v;
    b += x * w;
    c += y * v;
    d += y * w;
  }
  sums[0] += a;
  sums[1] += b;
  sums[2] += c;
  sums[3] += d;
}
