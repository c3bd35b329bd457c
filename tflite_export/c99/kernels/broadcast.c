/* How two tensors of up to four dimensions meet: steps are 0 where one is repeated. */
typedef struct {
  int32_t sizes[4], first[4], second[4];
} broadcast_t;

typedef int8_t (*combine_t)(const void *how, int32_t first, int32_t second);

/* Whichever tensor is as large as the output may lie where the output does. */
static void combine(combine_t function, const void *how, const broadcast_t *b,
                    const int8_t *first, const int8_t *second, int8_t *output) {
  int32_t i, j, k, l;
  for (i = 0; i < b->sizes[0]; ++i) {
    for (j = 0; j < b->sizes[1]; ++j) {
      for (k = 0; k < b->sizes[2]; ++k) {
        const int8_t *x = first + i * b->first[0] + j * b->first[1] + k * b->first[2];
        const int8_t *y =
            second + i * b->second[0] + j * b->second[1] + k * b->second[2];
        for (l = 0; l < b->sizes[3]; ++l) {
          *output++ = function(how, *x, *y);
          x += b->first[3];
          y += b->second[3];
        }
      }
    }
  }
}
