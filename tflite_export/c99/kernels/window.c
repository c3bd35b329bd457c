/* Where a window lies on an image. */
typedef struct {
  int32_t height, width, channels; /* of the image */
  int32_t kernel_height, kernel_width;
  int32_t stride_y, stride_x, dilation_y, dilation_x;
  int32_t top, left; /* rows and columns that lie outside */
  int32_t out_height, out_width;
  int32_t zero_point;
} window_t;
