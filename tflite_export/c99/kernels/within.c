static inline int32_t within(const scaling_t *s, int32_t value) {
  value = value < s->lowest ? s->lowest : value;
  return value > s->highest ? s->highest : value;
}
