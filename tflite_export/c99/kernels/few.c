/* One position of so few inputs that they are a constant number of pairs. */
static inline void few@PAIRS@_@WEIGHTS@_@FINISH@(const linear_t *l, const scaling_t *s,
                                               const uint32_t pairs[@PAIRS@],
                                               int8_t *output) {
  const @FINISH@_channel_t *channel = l->channels;
  const uint32_t *weights = l->weights;
  int32_t left;
  for (left = l->outputs; left > 0; left -= 2) {
    int32_t outputs[2], i;
    uint32_t sums[2], words[WORDS_@WEIGHTS@];
    outputs[0] = channel[0].bias;
    outputs[1] = channel[1].bias;
    begin_@WEIGHTS@(outputs, sums);
    UNROLLED
    for (i = 0; i < @PAIRS@ / 2; ++i) {
      take_@WEIGHTS@(&weights, words);
      multiply_@WEIGHTS@(pairs + 2 * i, words, sums);
    }
    if (@PAIRS@ % 2) {
      take_@WEIGHTS@(&weights, words);
      multiply_first_@WEIGHTS@(pairs[@PAIRS@ - 1], words, sums);
    }
    end_@WEIGHTS@(sums, outputs);
    *output++ = (int8_t)finish_@FINISH@(s, outputs[0], channel);
    if (left > 1) {
      *output++ = (int8_t)finish_@FINISH@(s, outputs[1], channel + 1);
    }
    channel += 2;
  }
}
