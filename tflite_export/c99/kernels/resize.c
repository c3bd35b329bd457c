/* Enlarged about the pixels' centres: the two inputs that each row and column lies
   between, and the second one's weight in units of 2^-11. */
typedef struct {
  int32_t width, channels, out_height, out_width;
  const int16_t *rows, *columns; /* of each: first, second, weight */
} resize_t;

static void resize(const resize_t *r, const int8_t *input, int8_t *output) {
  int32_t row, column, channel;
  for (row = 0; row < r->out_height; ++row) {
    const int16_t *const y = r->rows + 3 * row;
    const int8_t *const upper = input + y[0] * r->width * r->channels;
    const int8_t *const lower = input + y[1] * r->width * r->channels;
    for (column = 0; column < r->out_width; ++column) {
      const int16_t *const x = r->columns + 3 * column;
      const int32_t start = x[0] * r->channels, end = x[1] * r->channels;
      for (channel = 0; channel < r->channels; ++channel) {
        const int32_t a = upper[start + channel], b = upper[end + channel];
        const int32_t c = lower[start + channel], d = lower[end + channel];
        const int32_t above = a * 2048 + (b - a) * x[2];
        const int32_t below = c * 2048 + (d - c) * x[2];
        const int32_t sum = above * 2048 + (below - above) * y[2];
        *output++ = (int8_t)((sum + (1 << 21)) >> 22);
      }
    }
  }
}
