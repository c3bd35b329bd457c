/* Weights of four channels from a word to two pairs: of channels 0 and 2, 1 and 3. */
static void unpack_int8(const uint32_t *weights, int32_t taps, int32_t fours,
                        uint32_t *unpacked) {
  int32_t left;
  for (left = taps * fours; left > 0; --left) {
    const uint32_t word = *weights++;
    unpacked[0] = even_bytes(word);
    unpacked[1] = odd_bytes(word);
    unpacked += 2;
  }
}
