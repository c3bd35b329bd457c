/* The same of so many inputs that sums are taken in parts, added to biases. */
static inline const uint32_t *dot_long_@WEIGHTS@(const uint32_t *x, const uint32_t *y,
                                                 const uint32_t *end,
                                                 const uint32_t *weights,
                                                 int32_t first[2], int32_t second[2]) {
  do {
    const int32_t left = (int32_t)(end - x);
    const int32_t words = left < MAX_SUMMED / 2 ? left : MAX_SUMMED / 2;
    int32_t part_first[2] = {0, 0}, part_second[2] = {0, 0};
    weights = dot_@WEIGHTS@(x, y, x + words, weights, part_first, part_second);
    first[0] += part_first[0];
    first[1] += part_first[1];
    second[0] += part_second[0];
    second[1] += part_second[1];
    x += words;
    y += words;
  } while (x != end);
  return weights;
}
