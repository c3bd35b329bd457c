/* Depthwise convolutions: each channel has `multiplier` outputs. Weights lie tap by
   tap, one of each output channel. */
typedef struct {
  const scaling_t *scaling;
  const int8_t *weights;
  const int32_t *bias;
  int32_t multiplier;
} depthwise_t;
