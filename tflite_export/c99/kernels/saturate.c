#if defined(__ARM_FEATURE_SAT)
#include <arm_acle.h>
#endif

static inline int32_t saturate(int32_t value) {
#if defined(__ARM_FEATURE_SAT)
  return __ssat(value, 8);
#else
  value = value < -128 ? -128 : value;
  return value > 127 ? 127 : value;
#endif
}
