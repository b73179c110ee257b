"""The embedded synthetic web: a seeded world, the pages people write about it, and the truth."""
