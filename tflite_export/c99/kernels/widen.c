/* Inputs as pairs, a column. */
static void widen(const int8_t *values, int32_t count, uint32_t *column) {
  const int8_t *const whole = values + (count - count % 4);
  for (; values != whole; values += 4) {
    take_four(values, column);
    column += 2;
  }
  if (count % 4) {
    take_rest(values, count % 4, column);
  }
}
