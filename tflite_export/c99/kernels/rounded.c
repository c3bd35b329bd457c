/* A float32 that no compiler makes one operation of, with what it comes from and what
   follows, which would round once only. */
static inline float rounded(float value) {
#if defined(__GNUC__) && defined(__arm__) && defined(__ARM_FP)
  __asm__("" : "+t"(value));
  return value;
#else
  const volatile float stored = value;
  return stored;
#endif
}
