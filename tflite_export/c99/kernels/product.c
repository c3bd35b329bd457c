/* The product of values without their zero points, times a float32 multiplier. */
typedef struct {
  int32_t first_zero_point, second_zero_point;
  float multiplier;
  int32_t zero_point;
  float low, high;
} product_t;

static inline int8_t product(const void *how, int32_t first, int32_t second) {
  const product_t *const p = (const product_t *)how;
  const int32_t exact =
      (first - p->first_zero_point) * (second - p->second_zero_point);
  return round_within(rounded((float)exact * p->multiplier), p->zero_point, p->low,
                      p->high);
}
