/* What a window covers at a position of the output, of each tap so many channels;
   outside the image it is the zero point. */
static void copy_patch(const window_t *w, const int8_t *image, int32_t position,
                       int32_t first_channel, int32_t num_channels, int8_t *patch) {
  const int8_t *taps[MAX_TAPS];
  const int32_t count = w->kernel_height * w->kernel_width;
  int32_t tap;
  find_taps(w, image, position, NULL, taps);
  for (tap = 0; tap < count; ++tap) {
    if (taps[tap] == NULL) {
      memset(patch, (int)w->zero_point, (size_t)num_channels);
    } else {
      memcpy(patch, taps[tap] + first_channel, (size_t)num_channels);
    }
    patch += num_channels;
  }
}
