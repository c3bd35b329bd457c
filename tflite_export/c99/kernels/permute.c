/* The values of up to five dimensions in the output's order; steps are the input's. */
typedef struct {
  int32_t start, sizes[5], steps[5];
} permute_t;

static void permute(const permute_t *p, const int8_t *input, int8_t *output) {
  int32_t a, b, c, d, e;
  for (a = 0; a < p->sizes[0]; ++a) {
    for (b = 0; b < p->sizes[1]; ++b) {
      for (c = 0; c < p->sizes[2]; ++c) {
        for (d = 0; d < p->sizes[3]; ++d) {
          const int8_t *value = input + p->start + a * p->steps[0] + b * p->steps[1] +
                                c * p->steps[2] + d * p->steps[3];
          for (e = 0; e < p->sizes[4]; ++e) {
            *output++ = *value;
            value += p->steps[4];
          }
        }
      }
    }
  }
}
