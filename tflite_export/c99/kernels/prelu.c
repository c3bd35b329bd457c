/* Below the zero point, slopes of each value or of each channel. */
typedef struct {
  const int8_t *slopes;
  int32_t num_slopes, input_zero_point, zero_point;
  int32_t multiplier, exponent;             /* above */
  int32_t slope_multiplier, slope_exponent; /* below */
} prelu_t;

static void prelu(const prelu_t *p, const int8_t *input, int32_t count,
                  int8_t *output) {
  int32_t i;
  for (i = 0; i < count; ++i) {
    const int32_t value = input[i] - p->input_zero_point;
    int32_t result;
    if (value < 0) {
      result = multiply_fixed(value * p->slopes[i % p->num_slopes],
                              p->slope_multiplier, p->slope_exponent);
    } else {
      result = multiply_fixed(value, p->multiplier, p->exponent);
    }
    result += p->zero_point;
    if (result < -128) {
      result = -128;
    }
    output[i] = (int8_t)(result > 127 ? 127 : result);
  }
}
