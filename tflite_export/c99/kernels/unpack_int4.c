/* Weights of four channels at two taps from a word to two pairs for each tap: of channels
   0 and 2, 1 and 3. */
static void unpack_int4(const uint32_t *weights, int32_t taps, int32_t fours,
                        uint32_t *unpacked) {
  int32_t four, tap;
  for (four = 0; four < fours; ++four) {
    uint32_t word = 0;
    for (tap = 0; tap < taps; ++tap) {
      word = tap % 2 ? word >> 16 : *weights++;
      unpacked[0] = pair((int32_t)(word << 28) >> 28, (int32_t)(word << 20) >> 28);
      unpacked[1] = pair((int32_t)(word << 24) >> 28, (int32_t)(word << 16) >> 28);
      unpacked += 2;
    }
  }
}
