"""Inference: one engine under generate, chat, serve, rl, eval and the samples during training."""
