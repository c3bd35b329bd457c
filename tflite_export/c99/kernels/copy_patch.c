/* So many bytes, mostly few of them. */
static inline void copy_bytes(int8_t *to, const int8_t *from, int32_t count) {
#if defined(__ARM_FEATURE_UNALIGNED)
  if (count < 32) {
    for (; count >= 4; count -= 4) {
      memcpy(to, from, 4);
      to += 4;
      from += 4;
    }
    for (; count > 0; --count) {
      *to++ = *from++;
    }
    return;
  }
#endif
  memcpy(to, from, (size_t)count);
}

/* What a window covers at a position of the output, of each tap so many channels;
   outside the image it is the zero point. */
static void copy_patch(const window_t *w, const int8_t *image, int32_t position,
                       int32_t first_channel, int32_t num_channels, int8_t *patch) {
  const int8_t *row = find_window(w, image, position);
  const int32_t top = position / w->out_width * w->stride_y - w->top;
  const int32_t left = position % w->out_width * w->stride_x - w->left;
  /* Neighbours in a row lie side by side. */
  const int32_t as_rows = w->dilation_x == 1 && num_channels == w->channels;
  const int32_t run = as_rows ? w->kernel_width : 1;
  const int32_t bytes = run * num_channels;
  int32_t i, j;
  for (i = 0; row && i < w->kernel_height; ++i) {
    const int8_t *place = row + first_channel;
    for (j = 0; j < w->kernel_width; j += run) {
      copy_bytes(patch, place, bytes);
      patch += bytes;
      place += w->dilation_x * w->channels;
    }
    row += w->dilation_y * w->width * w->channels;
  }
  for (i = 0; !row && i < w->kernel_height; ++i) {
    const int32_t y = top + i * w->dilation_y;
    for (j = 0; j < w->kernel_width; ++j) {
      const int32_t x = left + j * w->dilation_x;
      if (y < 0 || y >= w->height || x < 0 || x >= w->width) {
        memset(patch, (int)w->zero_point, (size_t)num_channels);
      } else {
        const int32_t place = (y * w->width + x) * w->channels;
        copy_bytes(patch, image + place + first_channel, num_channels);
      }
      patch += num_channels;
    }
  }
}
