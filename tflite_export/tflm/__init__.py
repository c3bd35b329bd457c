"""TensorFlow Lite for Microcontrollers: what its reference kernels compute."""
