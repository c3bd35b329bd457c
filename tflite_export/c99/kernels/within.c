static inline int8_t within(const scaling_t *s, int32_t value) {
  value = value < s->lowest ? s->lowest : value;
  return (int8_t)(value > s->highest ? s->highest : value);
}
