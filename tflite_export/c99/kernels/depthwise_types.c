/* Depthwise convolutions: each channel has `multiplier` outputs. Weights are those of
   four output channels, tap by tap. */
typedef struct {
  const scaling_t *scaling;
  const uint32_t *weights;
  const void *channels;
  int32_t multiplier;
} depthwise_t;
