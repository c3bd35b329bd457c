#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32) && \
    defined(__thumb2__) && defined(__GNUC__) && !defined(__ARM_BIG_ENDIAN)
#include <arm_acle.h>
#define HAS_SIMD 1

/* Two values of 16 bits each in a word, the first in the lower half. */
static inline uint32_t pair(int32_t first, int32_t second) {
  uint32_t both;
  __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(both) : "r"(first), "r"(second));
  return both;
}

/* Both products in one instruction; sums are modulo 2^32. */
static inline uint32_t add_products(uint32_t sum, uint32_t x, uint32_t y) {
  return (uint32_t)__smlad((int16x2_t)x, (int16x2_t)y, (int32_t)sum);
}

/* One product: of the lower value of x and the upper one of y, or the other way. */
static inline uint32_t add_lower_upper(uint32_t sum, uint32_t x, uint32_t y) {
  return (uint32_t)__smlabt((int32_t)x, (int32_t)y, (int32_t)sum);
}

static inline uint32_t add_upper_lower(uint32_t sum, uint32_t x, uint32_t y) {
  return (uint32_t)__smlatb((int32_t)x, (int32_t)y, (int32_t)sum);
}

/* Bytes 0 and 2 of a word with their signs, and bytes 1 and 3. */
static inline uint32_t even_bytes(uint32_t word) {
  return (uint32_t)__sxtb16(word);
}

static inline uint32_t odd_bytes(uint32_t word) {
  uint32_t bytes;
  __asm__("sxtb16 %0, %1, ror #8" : "=r"(bytes) : "r"(word));
  return bytes;
}

/* Two words, and on to those behind them. */
static inline void take_two(const uint32_t **words, uint32_t two[2]) {
  __asm__("ldrd %0, %1, [%2], #8"
          : "=&r"(two[0]), "=&r"(two[1]), "+r"(*words)
          : "m"(*(const uint32_t(*)[2])*words));
}

/* Two words, and on to the second one. */
static inline void take_two_step_one(const uint32_t **words, uint32_t two[2]) {
  __asm__("ldrd %0, %1, [%2], #4"
          : "=&r"(two[0]), "=&r"(two[1]), "+r"(*words)
          : "m"(*(const uint32_t(*)[2])*words));
}
#else
static inline uint32_t pair(int32_t first, int32_t second) {
  return ((uint32_t)first & 0xFFFFu) | (uint32_t)second << 16;
}

static inline void take_two(const uint32_t **words, uint32_t two[2]) {
  two[0] = *(*words)++;
  two[1] = *(*words)++;
}

static inline void take_two_step_one(const uint32_t **words, uint32_t two[2]) {
  two[0] = *(*words)++;
  two[1] = **words;
}

static inline int32_t lower(uint32_t word) {
  return (int16_t)(uint16_t)word;
}

static inline int32_t upper(uint32_t word) {
  return (int32_t)word >> 16;
}

static inline uint32_t add_products(uint32_t sum, uint32_t x, uint32_t y) {
  return sum + (uint32_t)(lower(x) * lower(y)) + (uint32_t)(upper(x) * upper(y));
}

static inline uint32_t add_lower_upper(uint32_t sum, uint32_t x, uint32_t y) {
  return sum + (uint32_t)(lower(x) * upper(y));
}

static inline uint32_t add_upper_lower(uint32_t sum, uint32_t x, uint32_t y) {
  return sum + (uint32_t)(upper(x) * lower(y));
}

static inline uint32_t even_bytes(uint32_t word) {
  return pair((int8_t)(uint8_t)word, (int8_t)(uint8_t)(word >> 16));
}

static inline uint32_t odd_bytes(uint32_t word) {
  return even_bytes(word >> 8);
}
#endif
