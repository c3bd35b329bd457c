/* Weights of two output channels and four inputs in a word. From the top, each half has
   those of both channels for the first pair of inputs and for the second pair. */
#define WORDS_int4 1

static inline void take_int4(const uint32_t **weights, uint32_t words[1]) {
  words[0] = *(*weights)++;
}

#if defined(HAS_SIMD)
/* Weights are taken as 4096 times what they are. */
static inline void multiply_int4(const uint32_t pairs[2], const uint32_t words[1],
                                 uint32_t sums[2]) {
  const uint32_t word = words[0], top = 0xF000F000u;
  sums[0] = add_products(sums[0], pairs[0], word & top);
  sums[1] = add_products(sums[1], pairs[0], word << 4 & top);
  sums[0] = add_products(sums[0], pairs[1], word << 8 & top);
  sums[1] = add_products(sums[1], pairs[1], word << 12 & top);
}

/* As long as they are below 2^19. */
static inline void add_sums_int4(const uint32_t sums[2], int32_t outputs[2]) {
  outputs[0] += (int32_t)sums[0] >> 12;
  outputs[1] += (int32_t)sums[1] >> 12;
}
#else
/* The four bits that begin so many below the top. */
static inline int32_t bits_below(uint32_t word, int32_t count) {
  return (int32_t)(word << count) >> 28;
}

static inline void multiply_int4(const uint32_t pairs[2], const uint32_t words[1],
                                 uint32_t sums[2]) {
  const uint32_t word = words[0];
  int32_t first = 0, second = 0;
  first += upper(pairs[0]) * bits_below(word, 0);
  second += upper(pairs[0]) * bits_below(word, 4);
  first += upper(pairs[1]) * bits_below(word, 8);
  second += upper(pairs[1]) * bits_below(word, 12);
  first += lower(pairs[0]) * bits_below(word, 16);
  second += lower(pairs[0]) * bits_below(word, 20);
  first += lower(pairs[1]) * bits_below(word, 24);
  second += lower(pairs[1]) * bits_below(word, 28);
  sums[0] += (uint32_t)first;
  sums[1] += (uint32_t)second;
}

static inline void add_sums_int4(const uint32_t sums[2], int32_t outputs[2]) {
  outputs[0] += (int32_t)sums[0];
  outputs[1] += (int32_t)sums[1];
}
#endif
