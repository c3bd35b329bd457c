/* Channels laid out as blocks of positions, of which some rows and columns remain. */
static void blocks(const int8_t *input, int32_t width, int32_t block_height,
                   int32_t block_width, int32_t channels, int32_t top, int32_t left,
                   int32_t out_height, int32_t out_width, int8_t *output) {
  int32_t row, column;
  for (row = top; row < top + out_height; ++row) {
    for (column = left; column < left + out_width; ++column) {
      const int32_t position = row / block_height * width + column / block_width;
      const int32_t place =
          row % block_height * block_width + column % block_width;
      memcpy(output,
             input + (position * block_height * block_width + place) * channels,
             (size_t)channels);
      output += channels;
    }
  }
}
