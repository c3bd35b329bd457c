/* How the sums of an operation become int8: multipliers of each output channel, in
   float32 or as integers with exponents; low and high are the output's bounds without
   its zero point. */
typedef struct {
  const float *multipliers;
  const int32_t *mantissas;
  const int8_t *exponents;
  int32_t first_away; /* channels from here on round their ties away from zero */
  int32_t zero_point;
  float low, high;
} scaling_t;
