"""A student as C99: code for exactly one network, for processors without a runtime."""
