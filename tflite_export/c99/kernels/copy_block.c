/* Rows of bytes from one tensor into a larger one. */
static void copy_block(const int8_t *input, int32_t rows, int32_t bytes,
                       int8_t *output, int32_t stride) {
  int32_t row;
  for (row = 0; row < rows; ++row) {
    memcpy(output + row * stride, input + row * bytes, (size_t)bytes);
  }
}
