"""What LiteRT's kernels compute, bit for bit."""
