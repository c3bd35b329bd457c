/* Products of a row of three taps at two positions side by side; on to the next two. */
static inline void add_row(const uint32_t **row, const uint32_t weights[2],
                           uint32_t sums[2]) {
  uint32_t values[2];
  take_two_step_one(row, values);
  sums[0] = add_products(sums[0], values[0], weights[0]);
  sums[1] = add_upper_lower(sums[1], values[0], weights[0]);
  sums[0] = add_lower_upper(sums[0], values[1], weights[1]);
  sums[1] = add_products(sums[1], values[1], weights[1]);
}
