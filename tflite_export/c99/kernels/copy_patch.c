/* What a window covers at a position of the output, of each tap so many channels;
   outside the image it is the zero point. */
static void copy_patch(const window_t *w, const int8_t *image, int32_t position,
                       int32_t first_channel, int32_t num_channels, int8_t *patch) {
  const int32_t top = position / w->out_width * w->stride_y - w->top;
  const int32_t left = position % w->out_width * w->stride_x - w->left;
  /* Neighbours in a row lie side by side. */
  const int32_t as_rows = w->dilation_x == 1 && num_channels == w->channels;
  const int32_t run = as_rows ? w->kernel_width : 1;
  const size_t bytes = (size_t)num_channels;
  int32_t i, j;
  for (i = 0; i < w->kernel_height; ++i) {
    const int32_t y = top + i * w->dilation_y;
    for (j = 0; j < w->kernel_width; j += run) {
      const int32_t x = left + j * w->dilation_x;
      int32_t start = x < 0 ? -x : 0, end = w->width - x;
      start = start > run || y < 0 || y >= w->height ? run : start;
      end = end > run ? run : end;
      end = end < start ? start : end;
      if (start > 0) {
        memset(patch, (int)w->zero_point, (size_t)start * bytes);
      }
      if (end > start) {
        const int32_t place = (y * w->width + x + start) * w->channels;
        memcpy(patch + start * num_channels, image + place + first_channel,
               (size_t)(end - start) * bytes);
      }
      if (end < run) {
        memset(patch + end * num_channels, (int)w->zero_point,
               (size_t)(run - end) * bytes);
      }
      patch += run * num_channels;
    }
  }
}
