"""What a file must hold, and that it computes what was trained."""
