/* Weights of two output channels and four inputs in a word. From the top, each half has
   those of both channels for the first pair of inputs and for the second pair. */
#define WORDS_int4 1

static inline void take_int4(const uint32_t **weights, uint32_t words[1]) {
  words[0] = *(*weights)++;
}

#if defined(HAS_SIMD)
/* Products of the first pair of four inputs; of both pairs. Weights are taken as 4096
   times what they are. */
static inline void multiply_first_int4(uint32_t first, const uint32_t words[1],
                                       uint32_t sums[2]) {
  sums[0] = add_products(sums[0], first, words[0] & 0xF000F000u);
  sums[1] = add_products(sums[1], first, words[0] << 4 & 0xF000F000u);
}

static inline void multiply_int4(const uint32_t pairs[2], const uint32_t words[1],
                                 uint32_t sums[2]) {
  multiply_first_int4(pairs[0], words, sums);
  sums[0] = add_products(sums[0], pairs[1], words[0] << 8 & 0xF000F000u);
  sums[1] = add_products(sums[1], pairs[1], words[0] << 12 & 0xF000F000u);
}

/* So is what sums begin with; they are exact as long as they are below 2^19. */
static inline void begin_int4(const int32_t values[2], uint32_t sums[2]) {
  sums[0] = (uint32_t)values[0];
  sums[1] = (uint32_t)values[1];
}

static inline void end_int4(const uint32_t sums[2], int32_t outputs[2]) {
  outputs[0] = (int32_t)sums[0] >> 12;
  outputs[1] = (int32_t)sums[1] >> 12;
}
#else
/* The four bits that begin so many below the top. */
static inline int32_t bits_below(uint32_t word, int32_t count) {
  return (int32_t)(word << count) >> 28;
}

static inline void multiply_first_int4(uint32_t first, const uint32_t words[1],
                                       uint32_t sums[2]) {
  const uint32_t word = words[0];
  sums[0] += (uint32_t)(upper(first) * bits_below(word, 0) +
                        lower(first) * bits_below(word, 16));
  sums[1] += (uint32_t)(upper(first) * bits_below(word, 4) +
                        lower(first) * bits_below(word, 20));
}

static inline void multiply_int4(const uint32_t pairs[2], const uint32_t words[1],
                                 uint32_t sums[2]) {
  uint32_t second[1];
  second[0] = words[0] << 8;
  multiply_first_int4(pairs[0], words, sums);
  multiply_first_int4(pairs[1], second, sums);
}

static inline void begin_int4(const int32_t values[2], uint32_t sums[2]) {
  sums[0] = (uint32_t)(values[0] >> 12);
  sums[1] = (uint32_t)(values[1] >> 12);
}

static inline void end_int4(const uint32_t sums[2], int32_t outputs[2]) {
  outputs[0] = (int32_t)sums[0];
  outputs[1] = (int32_t)sums[1];
}
#endif
