/* Depthwise convolutions of 3 x 3 taps, one channel after the other: of each a plane with
   all that windows reach, two neighbours of a row in a word. */
typedef struct {
  const scaling_t *scaling;
  const uint8_t *weights; /* of each output channel */
  const void *channels;
  int32_t multiplier; /* output channels of each channel */
  int32_t words;      /* of a row of a plane */
} depthwise_3x3_t;

/* Two neighbours, which may lie outside. */
static inline uint32_t pair_at_edge(const window_t *w, const int8_t *row, int32_t x) {
  const int32_t first = x >= 0 && x < w->width, second = x >= -1 && x + 1 < w->width;
  return pair(first ? row[x * w->channels] : w->zero_point,
              second ? row[(x + 1) * w->channels] : w->zero_point);
}

/* Rows of a channel that lie on the image; others do not change from one to the next. */
static void copy_plane(const window_t *w, const int8_t *row, int32_t words,
                       uint32_t *plane) {
  const int32_t last = (w->out_height - 1) * w->stride_y + 2 - w->top;
  const int32_t step = w->channels;
  const int32_t inside = (w->left + 1) / 2, right = (w->width + w->left) / 2;
  int32_t y, i;
  plane += w->top * words;
  for (y = 0; y < w->height && y <= last; ++y) {
    const int8_t *value = row + (2 * inside - w->left) * step;
    for (i = 0; i < words && i < inside; ++i) {
      *plane++ = pair_at_edge(w, row, 2 * i - w->left);
    }
    for (; i < words && i < right; ++i) {
      *plane++ = pair(value[0], value[step]);
      value += 2 * step;
    }
    for (; i < words; ++i) {
      *plane++ = pair_at_edge(w, row, 2 * i - w->left);
    }
    row += w->width * step;
  }
}
