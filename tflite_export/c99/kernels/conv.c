/* A convolution; `columns` has two positions of one group, and the bytes of one. */
static void conv(linear_rows_t linear, const linear_t *l, const window_t *w,
                 int32_t groups, const int8_t *input, uint32_t *columns,
                 int8_t *output) {
  const int32_t count = w->out_height * w->out_width;
  const int32_t channels = w->channels / groups;
  const int32_t width = groups * l->outputs;
  uint32_t *const second = columns + (l->inputs + 3) / 4 * 2;
  int8_t *const patch = (int8_t *)(second + (second - columns));
  int32_t group, position;
  for (group = 0; group < groups; ++group) {
    int8_t *out = output + group * l->outputs;
    for (position = 0; position < count; position += 2) {
      const int32_t next = position + 1 < count ? 1 : 0;
      copy_patch(w, input, position, group * channels, channels, patch);
      widen(patch, l->inputs, columns);
      if (next) {
        copy_patch(w, input, position + 1, group * channels, channels, patch);
      }
      widen(patch, l->inputs, second);
      linear(l, group, columns, out, out + next * width);
      out += 2 * width;
    }
  }
}
