static void linear_@WEIGHTS@_@FINISH@(const linear_t *l, int32_t group,
                                     const uint32_t *columns, int8_t *out_first,
                                     int8_t *out_second) {
  /* A copy, which writing to the outputs cannot change. */
  const scaling_t s = *l->scaling;
  const int32_t outputs = l->outputs;
  const uint32_t *const end = columns + (l->inputs + 3) / 4 * 2;
  const uint32_t *weights = l->weights + group * ((outputs + 1) / 2) * l->stride;
  const @FINISH@_channel_t *channel = l->channels;
  const places_@FINISH@_t places = places_@FINISH@(out_first, out_second);
  int32_t left;
  channel += group * outputs;
  for (left = outputs; left > 0; left -= 2) {
    int32_t first[2], second[2];
    first[0] = second[0] = channel[0].bias;
    first[1] = second[1] = channel[1].bias;
    weights = dot_@WEIGHTS@(columns, end, end, weights, first, second);
    store_four_@FINISH@(&s, &places, first, second, channel, out_first, out_second,
                        left > 1);
    out_first += 2;
    out_second += 2;
    channel += 2;
  }
}
