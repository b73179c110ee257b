"""Text to token ids and back: byte-level BPE, trained here or given by others."""
