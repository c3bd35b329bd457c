static int8_t largest(const window_t *w, const int8_t *image, int32_t top,
                      int32_t bottom, int32_t left, int32_t right, int32_t low,
                      int32_t high) {
  int32_t found = low, y, x;
  for (y = top; y < bottom; ++y) {
    for (x = left; x < right; ++x) {
      const int32_t value = image[(y * w->width + x) * w->channels];
      found = value > found ? value : found;
    }
  }
  return (int8_t)(found > high ? high : found);
}
