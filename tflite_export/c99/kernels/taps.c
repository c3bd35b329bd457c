/* Where a window's values lie at a position of the output, tap by tap; `outside` stands
   for what lies outside the image. */
static void find_taps(const window_t *w, const int8_t *image, int32_t position,
                      const int8_t *outside, const int8_t **taps) {
  const int32_t height = w->kernel_height, width = w->kernel_width;
  const int32_t top = position / w->out_width * w->stride_y - w->top;
  const int32_t left = position % w->out_width * w->stride_x - w->left;
  const int32_t bottom = top + (height - 1) * w->dilation_y;
  const int32_t right = left + (width - 1) * w->dilation_x;
  const int32_t step = w->dilation_x * w->channels;
  int32_t i, j;
  if (top >= 0 && left >= 0 && bottom < w->height && right < w->width) {
    const int8_t *row = image + (top * w->width + left) * w->channels;
    for (i = height; i > 0; --i) {
      const int8_t *place = row;
      for (j = width; j > 0; --j) {
        *taps++ = place;
        place += step;
      }
      row += w->dilation_y * w->width * w->channels;
    }
    return;
  }
  for (i = 0; i < height; ++i) {
    const int32_t y = top + i * w->dilation_y;
    const int32_t inside = y >= 0 && y < w->height;
    int32_t place = (y * w->width + left) * w->channels, x = left;
    for (j = width; j > 0; --j) {
      *taps++ = inside && x >= 0 && x < w->width ? image + place : outside;
      place += step;
      x += w->dilation_x;
    }
  }
}
