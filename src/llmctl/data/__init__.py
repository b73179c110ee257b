"""Data for training: token bins, packed rows, batches."""
