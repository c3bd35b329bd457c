static void linear_@WEIGHTS@_@FINISH@(const linear_t *l, int32_t group,
                                     const uint32_t *columns, int8_t *out_first,
                                     int8_t *out_second) {
  /* A copy, which writing to the outputs cannot change. */
  const scaling_t s = *l->scaling;
  const int32_t outputs = l->outputs;
  const uint32_t *const end = columns + (l->inputs + 3) / 4 * 4;
  const uint32_t *weights = l->weights + group * ((outputs + 1) / 2) * l->stride;
  const @FINISH@_channel_t *channel = l->channels;
  const @FINISH@_channel_t *last;
  channel += group * outputs;
  for (last = channel + outputs - 1; channel <= last; channel += 2) {
    int32_t first[2], second[2];
    int32_t results[4];
    first[0] = second[0] = channel[0].bias;
    first[1] = second[1] = channel[1].bias;
    weights = dot_@WEIGHTS@(columns, end, weights, first, second);
    results[0] = finish_@FINISH@(&s, first[0], channel);
    results[1] = finish_@FINISH@(&s, first[1], channel + 1);
    results[2] = finish_@FINISH@(&s, second[0], channel);
    results[3] = finish_@FINISH@(&s, second[1], channel + 1);
    out_first[0] = (int8_t)results[0];
    out_second[0] = (int8_t)results[2];
    if (channel != last) {
      out_first[1] = (int8_t)results[1];
      out_second[1] = (int8_t)results[3];
    }
    out_first += 2;
    out_second += 2;
  }
}
