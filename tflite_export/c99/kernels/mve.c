/* Vectors of Cortex-M55 and its like: 16 bytes, products of eight 16-bit values at once. */
#if defined(HAS_SIMD) && defined(__ARM_FEATURE_MVE)
#if __ARM_FEATURE_MVE & 2
#include <arm_mve.h>
#define HAS_VECTORS 1
#endif
#endif
#if !defined(HAS_VECTORS)
#define HAS_VECTORS 0
#endif
