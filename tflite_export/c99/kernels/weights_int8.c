/* Weights of two output channels and four inputs in two words, for the pairs of inputs.
   A half of a word is 256 times the first channel's weight plus the second one's, whose
   weight is its lower byte. So sums are taken of both channels together, modulo 2^32,
   and of the second one. */
#define WORDS_int8 2

static inline void take_int8(const uint32_t **weights, uint32_t words[2]) {
  take_two(weights, words);
}

/* Products of the first pair of four inputs; of both pairs. */
static inline void multiply_first_int8(uint32_t first, const uint32_t words[2],
                                       uint32_t sums[2]) {
  sums[0] = add_products(sums[0], first, words[0]);
  sums[1] = add_products(sums[1], first, even_bytes(words[0]));
}

static inline void multiply_int8(const uint32_t pairs[2], const uint32_t words[2],
                                 uint32_t sums[2]) {
  multiply_first_int8(pairs[0], words, sums);
  sums[0] = add_products(sums[0], pairs[1], words[1]);
  sums[1] = add_products(sums[1], pairs[1], even_bytes(words[1]));
}

/* What sums begin with is 256 times the first channel's value plus the second one's, and
   the latter. They are those of each channel as long as the first one's are below 2^23. */
static inline void begin_int8(const int32_t values[2], uint32_t sums[2]) {
  sums[0] = (uint32_t)values[0];
  sums[1] = (uint32_t)values[1];
}

static inline void end_int8(const uint32_t sums[2], int32_t outputs[2]) {
  outputs[0] = (int32_t)(sums[0] - sums[1]) >> 8;
  outputs[1] = (int32_t)sums[1];
}
