"""Artifacts on disk: a folder is one once its manifest.json exists."""
