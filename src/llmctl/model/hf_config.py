"""Hugging Face config.json <-> ModelConfig.

The keys that change the computation stand in lists here: each is either read or must have the one
value we compute. Every other key is ignored; none ever names code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmctl.core.errors import Mismatch, UsageError
from llmctl.model.config import ModelConfig, RopeScaling

ARCHITECTURES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
GELU_TANH = ("gelu_new", "gelu_pytorch_tanh")

# key -> values under which our computation is the model's; absent counts as fine
GPT2_FIXED: dict[str, tuple[Any, ...]] = {
    "activation_function": GELU_TANH,
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
    "quantization_config": (None,),
}
LLAMA_FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "use_sliding_window": (False,),
    "partial_rotary_factor": (1, None),
    "is_encoder_decoder": (False,),
    "quantization_config": (None,),
    "num_experts": (None, 0),
    "num_local_experts": (None, 0),
}
ROPE_KINDS = ("default", "linear", "llama3")


def read(config: Mapping[str, Any], source: str = "config.json") -> ModelConfig:
    """ModelConfig of a foreign or own config.json.

    Raises Mismatch naming `source` and the key: an unknown model_type, a missing or ill-typed
    number, or a value that would change the computation in a way that is not built.
    """
    keys = _Keys(config, source)
    family = keys.value("model_type")
    if not isinstance(family, str) or family not in ARCHITECTURES:
        known, given = ", ".join(ARCHITECTURES), repr(family)[:80]
        raise Mismatch(f"{source}: model_type {given} is not supported; supported: {known}")
    try:
        return _read_gpt2(keys) if family == "gpt2" else _read_llama(keys, family)
    except UsageError as error:
        raise Mismatch(f"{source}: {error}") from None


class _Keys:
    """Typed access to a config, with errors that name file and key."""

    def __init__(self, config: Mapping[str, Any], source: str) -> None:
        self.config, self.source = config, source

    def refuse(self, key: str, wanted: str) -> Mismatch:
        value = str(self.config.get(key))[:80]
        return Mismatch(f"{self.source}: {key}={value} is not supported; {wanted}")

    def fixed(self, table: dict[str, tuple[Any, ...]]) -> None:
        for key, allowed in table.items():
            if key in self.config and self.config[key] not in allowed:
                raise self.refuse(key, f"only {' or '.join(map(str, allowed))} is")

    def value(self, key: str, default: Any = None) -> Any:
        found = self.config.get(key)
        return default if found is None else found

    def integer(self, key: str, default: int | None = None) -> int:
        found = self.value(key, default)
        if found is None:
            raise Mismatch(f"{self.source}: the key {key} is missing")
        if isinstance(found, bool) or not isinstance(found, int):
            raise self.refuse(key, "a whole number is wanted")
        return found

    def number(self, key: str, default: float) -> float:
        found = self.value(key, default)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise self.refuse(key, "a number is wanted")
        try:
            return float(found)
        except OverflowError:
            raise self.refuse(key, "it is beyond what a float holds") from None

    def flag(self, key: str, default: bool) -> bool:
        found = self.value(key, default)
        if not isinstance(found, bool):
            raise self.refuse(key, "true or false is wanted")
        return found

    def token_id(self, key: str) -> int | None:
        ids = self.token_ids(key)
        return ids[0] if ids else None

    def token_ids(self, key: str) -> tuple[int, ...]:
        found = self.config.get(key)
        ids = found if isinstance(found, list) else [] if found is None else [found]
        if any(isinstance(i, bool) or not isinstance(i, int) for i in ids):
            raise self.refuse(key, "token ids are whole numbers")
        return tuple(i for i in ids if i >= 0)


def _read_gpt2(keys: _Keys) -> ModelConfig:
    keys.fixed(GPT2_FIXED)
    d_model, n_heads = keys.integer("n_embd", 768), keys.integer("n_head", 12)
    return ModelConfig(
        family="gpt2",
        vocab_size=keys.integer("vocab_size", 50257),
        n_layers=keys.integer("n_layer", 12),
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        head_dim=d_model // max(n_heads, 1),
        d_ff=keys.integer("n_inner", 4 * d_model),
        max_seq_len=keys.integer("n_positions", 1024),
        norm_eps=keys.number("layer_norm_epsilon", 1e-5),
        tie_embeddings=keys.flag("tie_word_embeddings", True),
        bos_id=keys.token_id("bos_token_id"),
        eos_ids=keys.token_ids("eos_token_id"),
        pad_id=keys.token_id("pad_token_id"),
    )


def _read_llama(keys: _Keys, family: Any) -> ModelConfig:
    keys.fixed(LLAMA_FIXED)
    layer_types = keys.value("layer_types", [])
    if not isinstance(layer_types, list) or any(kind != "full_attention" for kind in layer_types):
        raise keys.refuse("layer_types", "only full_attention is")
    d_model, n_heads = keys.integer("hidden_size"), keys.integer("num_attention_heads")
    theta, scaling = _read_rope(keys)
    default_head = 128 if family == "qwen3" else d_model // max(n_heads, 1)
    return ModelConfig(
        family=family,
        vocab_size=keys.integer("vocab_size"),
        n_layers=keys.integer("num_hidden_layers"),
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=keys.integer("num_key_value_heads", n_heads),
        head_dim=keys.integer("head_dim", default_head),
        d_ff=keys.integer("intermediate_size"),
        max_seq_len=keys.integer("max_position_embeddings", 2048),
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=keys.number("rms_norm_eps", 1e-6),
        tie_embeddings=keys.flag("tie_word_embeddings", False),
        attention_bias=keys.flag("attention_bias", False) and family != "qwen2",
        mlp_bias=keys.flag("mlp_bias", False) and family == "llama",
        bos_id=keys.token_id("bos_token_id"),
        eos_ids=keys.token_ids("eos_token_id"),
        pad_id=keys.token_id("pad_token_id"),
    )


def _read_rope(keys: _Keys) -> tuple[float, RopeScaling | None]:
    """Base and scaling, from rope_parameters (transformers 5) or rope_theta and rope_scaling."""
    key = "rope_parameters" if keys.value("rope_parameters") else "rope_scaling"
    rope = keys.value(key, {})
    if not isinstance(rope, dict):
        raise keys.refuse(key, "a mapping is wanted")
    inner = _Keys(rope, f"{keys.source}: {key}")
    theta = inner.number("rope_theta", keys.number("rope_theta", 10_000.0))
    inner.fixed({"partial_rotary_factor": (1, None)})
    kind = inner.value("rope_type", inner.value("type", "default"))
    if kind not in ROPE_KINDS:
        raise Mismatch(
            f"{keys.source}: {key}.rope_type {str(kind)[:80]!r} is not supported; "
            f"supported: {', '.join(ROPE_KINDS)}"
        )
    if kind == "default":
        return theta, None
    factor = inner.number("factor", 0.0)
    if not factor >= 1:
        raise inner.refuse("factor", "a number of at least 1 is wanted")
    if kind == "linear":
        return theta, RopeScaling("linear", factor)
    low, high = inner.number("low_freq_factor", 1.0), inner.number("high_freq_factor", 4.0)
    if not 0 < low < high:
        raise inner.refuse("low_freq_factor", f"it must lie between 0 and high_freq_factor={high}")
    length = inner.integer("original_max_position_embeddings", 8192)
    if length < 1:
        raise inner.refuse("original_max_position_embeddings", "a length of at least 1 is wanted")
    return theta, RopeScaling("llama3", factor, low, high, length)


def write(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """config.json for transformers, vLLM, llama.cpp's converter and LM Studio.

    Every key that a reader might otherwise guess is written out: a missing tie_word_embeddings
    makes transformers draw a random head, a missing head_dim breaks shapes where it is not
    d_model / n_heads. `dtype` under both its names, since transformers renamed it in 5.0.
    """
    common: dict[str, Any] = {
        "architectures": [ARCHITECTURES[config.family]],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_ids[0] if len(config.eos_ids) == 1 else list(config.eos_ids),
        "torch_dtype": dtype,
        "dtype": dtype,
        "use_cache": True,
    }
    if not config.eos_ids:
        common["eos_token_id"] = None
    if config.pad_id is not None:
        common["pad_token_id"] = config.pad_id
    return common | (_write_gpt2(config) if config.family == "gpt2" else _write_llama(config))


def _write_gpt2(config: ModelConfig) -> dict[str, Any]:
    return {
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_inner": config.d_ff,
        "n_positions": config.max_seq_len,
        "n_ctx": config.max_seq_len,
        "layer_norm_epsilon": config.norm_eps,
        "activation_function": "gelu_new",
        "initializer_range": 0.02,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


def _write_llama(config: ModelConfig) -> dict[str, Any]:
    keys = {
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": _write_scaling(config.rope_scaling),
        "hidden_act": "silu",
        "attention_bias": config.attention_bias or config.family == "qwen2",
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
    }
    if config.family == "llama":
        keys["mlp_bias"] = config.mlp_bias
    else:
        keys |= {"use_sliding_window": False, "sliding_window": None}
    return keys


def _write_scaling(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    keys: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "llama3":
        keys |= {
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_seq_len,
        }
    return keys
