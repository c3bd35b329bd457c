/* (first * multiplier + second * multiplier + bias) / 2^shift, rounded down. */
typedef struct {
  int32_t first, second, bias, shift, zero_point, low, high;
} weighted_sum_t;

static inline int8_t weighted_sum(const void *how, int32_t first, int32_t second) {
  const weighted_sum_t *const w = (const weighted_sum_t *)how;
  int32_t sum = (first * w->first + second * w->second + w->bias) >> w->shift;
  if (sum < w->low) {
    sum = w->low;
  }
  if (sum > w->high) {
    sum = w->high;
  }
  return (int8_t)(sum + w->zero_point);
}
