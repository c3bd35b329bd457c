/* Products of inputs and a matrix. */
typedef struct {
  const scaling_t *scaling;
  const uint32_t *weights; /* of each two output channels, as many as inputs need */
  const void *channels;    /* biases are with what the input's zero point adds */
  int32_t inputs, outputs; /* of one group */
  int32_t stride;          /* words of the weights of two channels */
} linear_t;

/* Inputs of which sums are certain to be exact. */
#define MAX_SUMMED 256

/* Two positions at a time. */
typedef void (*linear_rows_t)(const linear_t *l, int32_t group,
                              const uint32_t *columns, int8_t *out_first,
                              int8_t *out_second);
