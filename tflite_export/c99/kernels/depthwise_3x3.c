static void depthwise_3x3_@WEIGHTS@_@FINISH@(const depthwise_3x3_t *d,
                                                    const window_t *w,
                                                    const int8_t *input,
                                                    uint32_t *plane, int8_t *output) {
  const scaling_t s = *d->scaling;
  const @FINISH@_channel_t *channels = d->channels;
  const uint8_t *weights = d->weights;
  const int32_t words = d->words, outputs = w->channels * d->multiplier;
  int32_t i, of_channel, y;
  for (i = ((w->out_height - 1) * w->stride_y + 3) * words - 1; i >= 0; --i) {
    plane[i] = pair(w->zero_point, w->zero_point);
  }
  for (i = 0; i < w->channels; ++i) {
    copy_plane(w, input++, words, plane);
    for (of_channel = d->multiplier; of_channel > 0; --of_channel) {
      const uint32_t *row = plane;
      const @FINISH@_channel_t channel = *channels++;
      int8_t *out = output++;
      uint32_t nine[6];
      take_nine_@WEIGHTS@(weights, nine);
      for (y = w->out_height; y > 0; --y) {
        const uint32_t *top = row, *middle = row + words, *bottom = middle + words;
        int32_t left;
        for (left = w->out_width; left > 0; left -= 2) {
          uint32_t sums[2];
          sums[0] = sums[1] = (uint32_t)channel.bias;
          add_row(&top, nine, sums);
          add_row(&middle, nine + 2, sums);
          add_row(&bottom, nine + 4, sums);
          *out = (int8_t)finish_@FINISH@(&s, (int32_t)sums[0], &channel);
          out += outputs;
          if (left > 1) {
            *out = (int8_t)finish_@FINISH@(&s, (int32_t)sums[1], &channel);
            out += outputs;
          }
        }
        row += w->stride_y * words;
      }
      weights += NINE_BYTES_@WEIGHTS@;
    }
  }
}
