static void linear_@WEIGHTS@_@FINISH@(const linear_t *l, int32_t group,
                                     const int8_t *first, const int8_t *second,
                                     int8_t *out_first, int8_t *out_second) {
  const int8_t *weights = l->weights + group * ((l->outputs + 1) / 2) * l->stride;
  int32_t i;
  for (i = 0; i < l->outputs; i += 2) {
    const int32_t channel = group * l->outputs + i;
    const int32_t both = i + 1 < l->outputs;
    int32_t sums[4];
    sums[0] = sums[2] = l->bias[channel];
    sums[1] = sums[3] = both ? l->bias[channel + 1] : 0;
    dot_@WEIGHTS@(first, second, weights, l->inputs, sums);
    weights += l->stride;
    out_first[i] = finish_@FINISH@(l->scaling, sums[0], channel);
    out_second[i] = finish_@FINISH@(l->scaling, sums[2], channel);
    if (both) {
      out_first[i + 1] = finish_@FINISH@(l->scaling, sums[1], channel + 1);
      out_second[i + 1] = finish_@FINISH@(l->scaling, sums[3], channel + 1);
    }
  }
}
