"""What every stage knows of a canonical network."""
