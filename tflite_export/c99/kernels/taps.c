/* Where a window's values lie at a position of the output, tap by tap; `outside` stands
   for what lies outside the image. */
static void find_taps(const window_t *w, const int8_t *image, int32_t position,
                      const int8_t *outside, const int8_t **taps) {
  const int32_t left = position % w->out_width * w->stride_x - w->left;
  const int32_t step = w->dilation_x * w->channels;
  const uint32_t width = (uint32_t)w->width;
  int32_t y = position / w->out_width * w->stride_y - w->top;
  int32_t i, j;
  for (i = 0; i < w->kernel_height; ++i) {
    const int32_t inside = y >= 0 && y < w->height;
    int32_t place = (y * w->width + left) * w->channels, x = left;
    for (j = w->kernel_width; j > 0; --j) {
      /* As an unsigned value, what lies on the left is large too. */
      *taps++ = inside && (uint32_t)x < width ? image + place : outside;
      place += step;
      x += w->dilation_x;
    }
    y += w->dilation_y;
  }
}
