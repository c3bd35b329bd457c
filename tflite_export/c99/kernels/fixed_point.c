/* value * multiplier * 2^(exponent - 31): rounded to the nearest, ties up, and, where
   the exponent is negative, once more after the shift, ties away from zero. */
static int32_t multiply_fixed(int32_t value, int32_t multiplier, int32_t exponent) {
  const int32_t left = exponent > 0 ? exponent : 0;
  const int32_t right = exponent < 0 ? -exponent : 0;
  const int64_t product = (int64_t)value * ((int64_t)1 << left) * multiplier;
  const int64_t half = (int64_t)1 << 30;
  const int64_t nudged = product + (product >= 0 ? half : 1 - half);
  const int64_t first = nudged / ((int64_t)1 << 31);
  const int64_t rest = right > 0 ? (int64_t)1 << (right - 1) : 0;
  return (int32_t)(first < 0 ? -((rest - first) >> right) : (first + rest) >> right);
}
