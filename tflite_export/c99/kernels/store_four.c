/* Where outputs of two channels at two positions go, and what they are multiplied by. */
#if HAS_VECTORS && VECTORS_@FINISH@
typedef struct {
  uint32x4_t outputs, multipliers; /* bytes from the first output, from a channel */
} places_@FINISH@_t;

static inline places_@FINISH@_t places_@FINISH@(const int8_t *first,
                                                const int8_t *second) {
  const uint32_t step = (uint32_t)(second - first);
  const uint32x4_t lanes = vidupq_n_u32(0, 1);
  const uint32x4_t low_bits = vandq_u32(lanes, vdupq_n_u32(1));
  places_@FINISH@_t places;
  places.outputs = vaddq_u32(low_bits, vmulq_n_u32(vshrq_n_u32(lanes, 1), step));
  places.multipliers = vaddq_n_u32(vshlq_n_u32(low_bits, 3), 4);
  return places;
}

static inline void store_four_@FINISH@(const scaling_t *s,
                                       const places_@FINISH@_t *places,
                                       const int32_t first[2], const int32_t second[2],
                                       const @FINISH@_channel_t *channel,
                                       int8_t *out_first, int8_t *out_second,
                                       int32_t both) {
  const float32x4_t multipliers = vldrwq_gather_offset_f32(
      (const float *)(const void *)channel, places->multipliers);
  int32x4_t sums = vdupq_n_s32(first[0]);
  sums = vsetq_lane_s32(first[1], sums, 1);
  sums = vsetq_lane_s32(second[0], sums, 2);
  sums = vsetq_lane_s32(second[1], sums, 3);
  sums = finish_vector(s, sums, multipliers);
  if (both) {
    vstrbq_scatter_offset_s32(out_first, places->outputs, sums);
  } else {
    out_first[0] = (int8_t)vgetq_lane_s32(sums, 0);
    out_second[0] = (int8_t)vgetq_lane_s32(sums, 2);
  }
}
#else
typedef int32_t places_@FINISH@_t;

static inline places_@FINISH@_t places_@FINISH@(const int8_t *first,
                                                const int8_t *second) {
  (void)first;
  (void)second;
  return 0;
}

static inline void store_four_@FINISH@(const scaling_t *s,
                                       const places_@FINISH@_t *places,
                                       const int32_t first[2], const int32_t second[2],
                                       const @FINISH@_channel_t *channel,
                                       int8_t *out_first, int8_t *out_second,
                                       int32_t both) {
  int32_t results[4];
  (void)places;
  results[0] = finish_@FINISH@(s, first[0], channel);
  results[1] = finish_@FINISH@(s, first[1], channel + 1);
  results[2] = finish_@FINISH@(s, second[0], channel);
  results[3] = finish_@FINISH@(s, second[1], channel + 1);
  out_first[0] = (int8_t)results[0];
  out_second[0] = (int8_t)results[2];
  if (both) {
    out_first[1] = (int8_t)results[1];
    out_second[1] = (int8_t)results[3];
  }
}
#endif
