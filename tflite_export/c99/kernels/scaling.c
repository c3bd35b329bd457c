/* What each output channel adds to its sums and multiplies them by: a float32, or
   mantissa * 2^(exponent - 31); `away` where ties are rounded away from zero. */
typedef struct {
  int32_t bias;
  float multiplier;
} float_channel_t, quick_float_channel_t, bounded_float_channel_t;

typedef struct {
  int32_t bias, mantissa;
  int16_t exponent, away;
} fixed_channel_t, quick_fixed_channel_t, bounded_fixed_channel_t;

/* How sums become int8, within bounds; low and high are without the zero point. */
typedef struct {
  int32_t zero_point;
  int32_t from_bits; /* the zero point without the bits of 1.5 * 2^23 */
  int32_t lowest, highest;
  float low, high;
} scaling_t;
