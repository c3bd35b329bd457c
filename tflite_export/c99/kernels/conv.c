/* A convolution; `scratch` holds two patches of one group. */
static void conv(linear_rows_t linear, const linear_t *l, const window_t *w,
                 int32_t groups, const int8_t *input, int8_t *scratch,
                 int8_t *output) {
  const int32_t count = w->out_height * w->out_width;
  const int32_t channels = w->channels / groups;
  const int32_t width = groups * l->outputs;
  int8_t *const second = scratch + l->inputs;
  int32_t group, position;
  for (group = 0; group < groups; ++group) {
    int8_t *const out = output + group * l->outputs;
    for (position = 0; position < count; position += 2) {
      const int32_t next = position + 1 < count ? position + 1 : position;
      copy_patch(w, input, position, group * channels, channels, scratch);
      copy_patch(w, input, next, group * channels, channels, second);
      linear(l, group, scratch, second, out + position * width, out + next * width);
    }
  }
}
