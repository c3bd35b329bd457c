"""What the operating system and TensorFlow share among all: files, memory, seeds."""
