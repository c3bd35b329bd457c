/* A convolution of few inputs. `offsets` has where those of each pair lie on the image,
   and then where they lie in a patch, for windows that reach over the edge. */
static void conv_few@PAIRS@_@WEIGHTS@_@FINISH@(const linear_t *l, const window_t *w,
                                             const int32_t *offsets,
                                             const int8_t *image, int8_t *patch,
                                             int8_t *output) {
  const scaling_t s = *l->scaling;
  const int32_t count = w->out_height * w->out_width;
  int32_t position, i;
  for (position = 0; position < count; ++position) {
    const int8_t *values = find_window(w, image, position);
    const int32_t *place = offsets;
    uint32_t pairs[@PAIRS@];
    if (!values) {
      copy_patch(w, image, position, 0, w->channels, patch);
      values = patch;
      place += 2 * @PAIRS@;
    }
    UNROLLED
    for (i = 0; i < @PAIRS@; ++i) {
      pairs[i] = pair(values[place[0]], values[place[1]]);
      place += 2;
    }
    few@PAIRS@_@WEIGHTS@_@FINISH@(l, &s, pairs, output);
    output += l->outputs;
  }
}
