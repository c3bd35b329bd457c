/* One row of inputs as they lie, fours of them. */
static void dense_@WEIGHTS@_@FINISH@(const linear_t *l, const int8_t *input,
                                    int8_t *output) {
  const scaling_t s = *l->scaling;
  const @FINISH@_channel_t *channel = l->channels;
  const int8_t *const end = input + (l->inputs + 3) / 4 * 4;
  const uint32_t *weights = l->weights;
  int32_t left;
  for (left = l->outputs; left > 0; left -= 2) {
    int32_t sums[2];
    sums[0] = channel[0].bias;
    sums[1] = channel[1].bias;
    weights = dot_row_@WEIGHTS@(input, end, weights, sums);
    *output++ = (int8_t)finish_@FINISH@(&s, sums[0], channel);
    if (left > 1) {
      *output++ = (int8_t)finish_@FINISH@(&s, sums[1], channel + 1);
    }
    channel += 2;
  }
}
