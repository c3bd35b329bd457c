/* Of the stored values, ties away from zero. */
static int8_t mean(const window_t *w, const int8_t *image, int32_t top, int32_t bottom,
                   int32_t left, int32_t right, int32_t low, int32_t high) {
  const int32_t count = (bottom - top) * (right - left);
  int32_t sum = 0, y, x;
  for (y = top; y < bottom; ++y) {
    for (x = left; x < right; ++x) {
      sum += image[(y * w->width + x) * w->channels];
    }
  }
  sum = sum < 0 ? -((count / 2 - sum) / count) : (sum + count / 2) / count;
  if (sum < low) {
    sum = low;
  }
  return (int8_t)(sum > high ? high : sum);
}
