/* Where a window begins at a position of the output, NULL if it reaches over the edge. */
static inline const int8_t *find_window(const window_t *w, const int8_t *image,
                                        int32_t position) {
  const int32_t y = position / w->out_width * w->stride_y - w->top;
  const int32_t x = position % w->out_width * w->stride_x - w->left;
  const int32_t bottom = y + (w->kernel_height - 1) * w->dilation_y;
  const int32_t right = x + (w->kernel_width - 1) * w->dilation_x;
  return y >= 0 && x >= 0 && bottom < w->height && right < w->width
             ? image + (y * w->width + x) * w->channels
             : NULL;
}
