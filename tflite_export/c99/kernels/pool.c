/* Windows of an image, those parts outside left out. */
typedef int8_t (*reduce_t)(const window_t *w, const int8_t *image, int32_t top,
                           int32_t bottom, int32_t left, int32_t right, int32_t low,
                           int32_t high);

static void pool(reduce_t reduce, const window_t *w, int32_t low, int32_t high,
                 const int8_t *input, int8_t *output) {
  int32_t row, column, channel;
  for (row = 0; row < w->out_height; ++row) {
    for (column = 0; column < w->out_width; ++column) {
      const int32_t y = row * w->stride_y - w->top;
      const int32_t x = column * w->stride_x - w->left;
      const int32_t bottom = y + w->kernel_height, right = x + w->kernel_width;
      for (channel = 0; channel < w->channels; ++channel) {
        *output++ = reduce(w, input + channel, y < 0 ? 0 : y,
                           bottom > w->height ? w->height : bottom, x < 0 ? 0 : x,
                           right > w->width ? w->width : right, low, high);
      }
    }
  }
}
