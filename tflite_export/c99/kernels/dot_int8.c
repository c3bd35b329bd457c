/* Two output channels at two positions. Of four inputs each, weights lie in pairs, one
   of each channel, for the inputs 0, 2, 1, 3; what is left over lies as it comes. */
static void dot_int8(const int8_t *first, const int8_t *second, const int8_t *weights,
                     int32_t count, int32_t sums[4]) {
  int32_t a = sums[0], b = sums[1], c = sums[2], d = sums[3];
  const int8_t *const end = first + count;
  const int8_t *const whole = end - count % 4;
  while (first != whole) {
#if defined(HAS_SIMD)
    const uint32_t x = load_word(first), y = load_word(second);
    const int16x2_t x_even = EVEN_BYTES(x), x_odd = ODD_BYTES(x);
    const int16x2_t y_even = EVEN_BYTES(y), y_odd = ODD_BYTES(y);
    const uint32_t even = load_word(weights), odd = load_word(weights + 4);
    int16x2_t v = EVEN_BYTES(even), w = ODD_BYTES(even);
    a = __smlad(x_even, v, a);
    b = __smlad(x_even, w, b);
    c = __smlad(y_even, v, c);
    d = __smlad(y_even, w, d);
    v = EVEN_BYTES(odd);
    w = ODD_BYTES(odd);
    a = __smlad(x_odd, v, a);
    b = __smlad(x_odd, w, b);
    c = __smlad(y_odd, v, c);
    d = __smlad(y_odd, w, d);
#else
    a += first[0] * weights[0] + first[2] * weights[2];
    b += first[0] * weights[1] + first[2] * weights[3];
    c += second[0] * weights[0] + second[2] * weights[2];
    d += second[0] * weights[1] + second[2] * weights[3];
    a += first[1] * weights[4] + first[3] * weights[6];
    b += first[1] * weights[5] + first[3] * weights[7];
    c += second[1] * weights[4] + second[3] * weights[6];
    d += second[1] * weights[5] + second[3] * weights[7];
#endif
    first += 4;
    second += 4;
    weights += 8;
  }
  while (first != end) {
    const int32_t x = *first++, y = *second++;
    a += x * weights[0];
    b += x * weights[1];
    c += y * weights[0];
    d += y * weights[1];
    weights += 2;
  }
  sums[0] = a;
  sums[1] = b;
  sums[2] = c;
  sums[3] = d;
}
