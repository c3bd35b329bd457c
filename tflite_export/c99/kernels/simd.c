/* Two 16-bit products in one instruction. */
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32)
#include <arm_acle.h>
#define HAS_SIMD 1

/* Bytes 0 and 2 with their signs in 16 bits each, and bytes 1 and 3. */
#define EVEN_BYTES(word) __sxtb16(word)
#define ODD_BYTES(word) __sxtb16((uint32_t)(word) >> 8)

static uint32_t load_word(const int8_t *bytes) {
  uint32_t word;
  memcpy(&word, bytes, 4);
  return word;
}
#endif
