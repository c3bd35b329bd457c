/* Convolutions of single positions, of 4 or 8 inputs, or 12. */
static void rows_few@PAIRS@_@WEIGHTS@_@FINISH@(const linear_t *l, const int8_t *input,
                                             int32_t count, int8_t *output) {
  const scaling_t s = *l->scaling;
  for (; count > 0; --count) {
    uint32_t pairs[@PAIRS@];
    int32_t i;
    UNROLLED
    for (i = 0; i < @PAIRS@; i += 2) {
      take_four(input, pairs + i);
      input += 4;
    }
    few@PAIRS@_@WEIGHTS@_@FINISH@(l, &s, pairs, output);
    output += l->outputs;
  }
}
