"""Command lines: flags in, one library call, a table out."""
