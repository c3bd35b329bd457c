"""Data-free quantization of Keras image classifiers."""
