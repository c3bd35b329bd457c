/* 128 x / |x| of each row of channels, as 32-bit fixed-point numbers. */
typedef struct {
  int32_t channels, zero_point;
  int32_t constants; /* what constant channels besides add to |x|^2 */
} l2_normalize_t;

/* value * multiplier / 2^31, rounded, ties up. */
static int64_t multiply_high(int64_t value, int64_t multiplier) {
  const int64_t product = value * multiplier;
  const int64_t half = (int64_t)1 << 30;
  return (product + (product >= 0 ? half : 1 - half)) / ((int64_t)1 << 31);
}

/* value / 2^bits, rounded, ties away from zero. */
static int64_t shift_rounding(int64_t value, int32_t bits) {
  const int64_t half = bits > 0 ? (int64_t)1 << (bits - 1) : 0;
  return value < 0 ? -((half - value) >> bits) : (value + half) >> bits;
}

static void l2_normalize(const l2_normalize_t *n, const int8_t *input, int32_t rows,
                         int8_t *output) {
  int32_t row, i;
  for (row = 0; row < rows; ++row) {
    int64_t squares = n->constants, x = 1 << 28, half, product;
    int32_t shift = 0, left;
    for (i = 0; i < n->channels; ++i) {
      const int32_t value = input[i] - n->zero_point;
      squares += value * value;
    }
    /* To 2^27 ... 2^29 by powers of four. */
    if (squares >= 1 << 29) {
      squares >>= 2;
      shift = 1;
    }
    for (i = 0; i < 13 && squares < 1 << 27; ++i) {
      squares *= 4;
      --shift;
    }
    half = shift_rounding(squares >> 1, 1);
    for (i = 0; i < 5; ++i) { /* Newton's iteration */
      const int64_t square = multiply_high(x, x);
      const int64_t cube = multiply_high(square, x) * 64;
      x = (multiply_high(x, 3 << 27) - multiply_high(half, cube)) * 8;
    }
    x = multiply_high(x, 1518500250); /* sqrt(1/2) */
    shift += 11; /* 1 / |x| is x * 2^(-shift - 31) */
    if (shift < 0) {
      x *= 1 << -shift;
      shift = 0;
    }
    left = shift < 7 ? 7 - shift : 0;
    for (i = 0; i < n->channels; ++i) {
      product = multiply_high((input[i] - n->zero_point) * (1 << left), x);
      product = shift_rounding(product, shift > 7 ? shift - 7 : 0);
      output[i] = (int8_t)(product < -128 ? -128 : product > 127 ? 127 : product);
    }
    input += n->channels;
    output += n->channels;
  }
}
