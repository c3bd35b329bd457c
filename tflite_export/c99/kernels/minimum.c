static inline int8_t minimum(const void *how, int32_t first, int32_t second) {
  (void)how;
  return (int8_t)(first < second ? first : second);
}
