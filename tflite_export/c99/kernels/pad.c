/* An image with margins: rows of bytes within larger ones. */
static void pad(const int8_t *input, int32_t rows, int32_t bytes, int8_t *output,
                int32_t out_rows, int32_t out_bytes, int32_t top, int32_t left,
                int32_t zero_point) {
  memset(output, (int)zero_point, (size_t)(out_rows * out_bytes));
  copy_block(input, rows, bytes, output + top * out_bytes + left, out_bytes);
}
