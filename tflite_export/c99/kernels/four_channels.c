/* Outputs of four channels at one position, from all taps; the weights behind theirs. */
static inline const uint32_t *four_channels_@FINISH@(
    const scaling_t *s, const @FINISH@_channel_t *channel, const int8_t *const *taps,
    int32_t count, int32_t first, const uint32_t *weights, int8_t *output) {
  const int8_t *const *const end = taps + count;
#if HAS_VECTORS && VECTORS_@FINISH@
  const uint32x4_t eights = vidupq_n_u32(0, 8), ones = vidupq_n_u32(0, 1);
  const uint32x4_t order = /* bytes 0, 4, 2, 6 */
      vaddq_u32(vandq_u32(ones, vdupq_n_u32(2)),
                vshlq_n_u32(vandq_u32(ones, vdupq_n_u32(1)), 2));
  int32x4_t sums =
      vldrwq_gather_offset_s32((const int32_t *)(const void *)channel, eights);
  const float32x4_t multipliers = vldrwq_gather_offset_f32(
      (const float *)(const void *)channel, vaddq_n_u32(eights, 4));
  do {
    const int32x4_t values = vldrbq_s32(*taps++ + first);
    const int32x4_t four = vldrhq_gather_offset_s32(
        (const int16_t *)(const void *)weights, order);
    sums = vaddq_s32(sums, vmulq_s32(values, four));
    weights += 2;
  } while (taps != end);
  vstrbq_s32(output, finish_vector(s, sums, multipliers));
#else
  int32_t sums[4];
  sums[0] = channel[0].bias;
  sums[1] = channel[1].bias;
  sums[2] = channel[2].bias;
  sums[3] = channel[3].bias;
  do {
    uint32_t words[2];
    take_two(&weights, words);
    add_four(*taps++ + first, words, sums);
  } while (taps != end);
  output[0] = (int8_t)finish_@FINISH@(s, sums[0], channel);
  output[1] = (int8_t)finish_@FINISH@(s, sums[1], channel + 1);
  output[2] = (int8_t)finish_@FINISH@(s, sums[2], channel + 2);
  output[3] = (int8_t)finish_@FINISH@(s, sums[3], channel + 3);
#endif
  return weights;
}
