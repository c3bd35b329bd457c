"""Entry points for people in a checkout, and measurements."""
