/* Where a window's values lie at a position of the output, tap by tap; `outside` stands
   for what lies outside the image. */
static void find_taps(const window_t *w, const int8_t *image, int32_t position,
                      const int8_t *outside, const int8_t **taps) {
  const int32_t top = position / w->out_width * w->stride_y - w->top;
  const int32_t left = position % w->out_width * w->stride_x - w->left;
  int32_t i, j;
  for (i = 0; i < w->kernel_height; ++i) {
    const int32_t y = top + i * w->dilation_y;
    for (j = 0; j < w->kernel_width; ++j) {
      const int32_t x = left + j * w->dilation_x;
      const int32_t inside = y >= 0 && y < w->height && x >= 0 && x < w->width;
      *taps++ = inside ? image + (y * w->width + x) * w->channels : outside;
    }
  }
}
