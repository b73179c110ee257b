"""A conversation with a model at the terminal."""
