"""Measuring models and artifacts against what is known to be true."""
