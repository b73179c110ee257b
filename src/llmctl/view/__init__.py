"""Looking into artifacts: what they are, where they came from, what is in them."""
