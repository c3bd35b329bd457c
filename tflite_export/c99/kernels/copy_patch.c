/* What a window covers at a position of the output, of each tap so many channels;
   outside the image it is the zero point. */
static void copy_patch(const window_t *w, const int8_t *image, int32_t position,
                       int32_t first_channel, int32_t num_channels, int8_t *patch) {
  const int32_t top = position / w->out_width * w->stride_y - w->top;
  const int32_t left = position % w->out_width * w->stride_x - w->left;
  int32_t i, j;
  for (i = 0; i < w->kernel_height; ++i) {
    const int32_t y = top + i * w->dilation_y;
    for (j = 0; j < w->kernel_width; ++j) {
      const int32_t x = left + j * w->dilation_x;
      if (y < 0 || y >= w->height || x < 0 || x >= w->width) {
        memset(patch, (int)w->zero_point, (size_t)num_channels);
      } else {
        memcpy(patch, image + (y * w->width + x) * w->channels + first_channel,
               (size_t)num_channels);
      }
      patch += num_channels;
    }
  }
}
