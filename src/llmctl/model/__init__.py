"""The model: one Transformer for GPT-2, Llama, Qwen2 and Qwen3 shapes, kept as HF folders."""
