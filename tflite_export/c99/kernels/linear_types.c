/* Rows of inputs times a matrix. */
typedef struct {
  const scaling_t *scaling;
  const int8_t *weights; /* of each two output channels, as the dot product reads them */
  const int32_t *bias;   /* with what the input's zero point adds */
  int32_t inputs, outputs; /* of one group */
  int32_t stride;          /* bytes of the weights of two channels */
} linear_t;

/* Two rows at a time. */
typedef void (*linear_rows_t)(const linear_t *l, int32_t group, const int8_t *first,
                              const int8_t *second, int8_t *out_first,
                              int8_t *out_second);
