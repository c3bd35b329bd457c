/* Depthwise convolutions: each channel has `multiplier` outputs. Weights lie tap by
   tap, one of each output channel; each tap begins with a byte of its own. */
typedef struct {
  const scaling_t *scaling;
  const int8_t *weights;
  const int32_t *bias;
  int32_t multiplier;
} depthwise_t;
