static void linear_@WEIGHTS@_@FINISH@(const linear_t *l, int32_t group,
                                     const uint32_t *columns, int8_t *out_first,
                                     int8_t *out_second) {
  /* A copy, which writing to the outputs cannot change. */
  const scaling_t s = *l->scaling;
  const int32_t outputs = l->outputs, stride = l->stride;
  const uint32_t *const end = columns + (l->inputs + 3) / 4 * 4;
  const uint32_t *weights = l->weights + group * ((outputs + 1) / 2) * stride;
  const int32_t *const bias = l->bias;
  int32_t channel = group * outputs;
  const int32_t last = channel + outputs - 1;
  for (; channel <= last; channel += 2) {
    int32_t first[2], second[2];
    first[0] = second[0] = bias[channel];
    first[1] = second[1] = bias[channel + 1];
    dot_@WEIGHTS@(columns, end, weights, first, second);
    weights += stride;
    out_first[0] = finish_@FINISH@(&s, first[0], channel);
    out_second[0] = finish_@FINISH@(&s, second[0], channel);
    if (channel != last) {
      out_first[1] = finish_@FINISH@(&s, first[1], channel + 1);
      out_second[1] = finish_@FINISH@(&s, second[1], channel + 1);
    }
    out_first += 2;
    out_second += 2;
  }
}
