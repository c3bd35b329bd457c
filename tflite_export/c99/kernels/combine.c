/* Whichever tensor is as large as the output may lie where the output does. */
static void combine_@HOW@(const void *restrict how, const broadcast_t *restrict b,
                          const int8_t *first, const int8_t *second, int8_t *output) {
  const int32_t first_step = b->first[3], second_step = b->second[3];
  int32_t i, j, k, l;
  for (i = 0; i < b->sizes[0]; ++i) {
    for (j = 0; j < b->sizes[1]; ++j) {
      for (k = 0; k < b->sizes[2]; ++k) {
        const int8_t *x = first + i * b->first[0] + j * b->first[1] + k * b->first[2];
        const int8_t *y =
            second + i * b->second[0] + j * b->second[1] + k * b->second[2];
        for (l = b->sizes[3]; l > 0; --l) {
          *output++ = @HOW@(how, *x, *y);
          x += first_step;
          y += second_step;
        }
      }
    }
  }
}
