"""Training of a config in processes of its own."""
