"""A model as a Hugging Face folder: read any GPT-2, Llama, Qwen2 or Qwen3 one, write our own.

Only safetensors and JSON are read. A pickle (.bin, .pt, .pkl) is refused, whatever is in it.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from llmctl.core.errors import Mismatch, NoInput, Refused
from llmctl.core.files import atomic_write, read_json, write_json
from llmctl.model import rope, tensor_file
from llmctl.model.config import ModelConfig
from llmctl.model.transformer import Transformer

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
# buffers that old checkpoints carry and nobody needs
BUFFERS = (".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq")
# GPT-2's files hold these matrices as (in, out); ours are (out, in) like every other matrix
CONV1D = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


class SavesItself(Protocol):
    """A tokenizer, as far as this module knows one."""

    def save(self, folder: Path) -> None: ...


def load_config(folder: Path | str, *, reward: bool = False) -> ModelConfig:
    """The ModelConfig of a model folder; generation_config.json adds further end-of-text ids.

    reward: whether a model that scores is wanted; Mismatch (78) when it is the other sort.
    """
    folder = Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise NoInput(f"{folder}: no config.json there; give a Hugging Face model folder")
    config = read_json(path, limit=16 << 20)
    if not isinstance(config, dict):
        raise Mismatch(f"{path}: not a JSON object; copy the file again")
    scores = gives_scores(config)
    if scores and not reward:
        raise Mismatch(f"{folder}: a reward or classifier model; a language model is wanted here")
    if reward and not (scores and _labels(config) == 1):
        raise Mismatch(f"{folder}: no reward model (one label); make one with `llmctl rm`")
    if reward:
        config["tie_word_embeddings"] = True  # there is no head to tie
    if config.get("tie_word_embeddings") is None and config.get("model_type") != "gpt2":
        config["tie_word_embeddings"] = _head_is_missing(folder)
    found = ModelConfig.from_hf(config, str(path))
    return dataclasses.replace(found, eos_ids=_all_eos(folder, found.eos_ids))


def gives_scores(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of a reward model or classifier, which has no logits."""
    return "ForSequenceClassification" in str(config.get("architectures"))


def _labels(config: Mapping[str, Any]) -> Any:
    """How many labels a classifier has; transformers writes id2label, others num_labels."""
    named = config.get("id2label")
    return len(named) if isinstance(named, dict) else config.get("num_labels", 2)


def _all_eos(folder: Path, eos_ids: tuple[int, ...]) -> tuple[int, ...]:
    path = folder / "generation_config.json"
    found = read_json(path, limit=1 << 20) if path.is_file() else {}
    more = found.get("eos_token_id") if isinstance(found, dict) else None
    ids = [*eos_ids, *(more if isinstance(more, list) else [more])]
    return tuple(dict.fromkeys(i for i in ids if type(i) is int and i >= 0))


def load_model(
    folder: Path | str,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
) -> Transformer:
    """The model of a folder, in eval mode, cast to `dtype` (None: as stored) on `device`.

    Raises NoInput (no folder, no weights), Refused (only pickles), Mismatch (damaged header, an
    unsupported config, parameters missing, left over or of another shape: the first 5 are named).
    """
    config = load_config(check_folder(folder))
    with torch.device("meta"):
        model = Transformer(config)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if config.tie_embeddings:
        del wanted["lm_head.weight"]
    return _assemble(model, read_state(folder, config, wanted, dtype, device), device)


def check_folder(folder: Path | str) -> Path:
    """The folder, when it is one with weights that can be read; else Refused or NoInput."""
    folder = Path(folder)
    if folder.suffix in PICKLES or (folder.is_file() and folder.suffix != ".json"):
        raise _pickle(folder)
    if not folder.is_dir():
        raise NoInput(f"{folder}: no such model folder; check the path")
    weight_files(folder)
    return folder


def read_state(
    folder: Path | str,
    config: ModelConfig,
    wanted: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype | None,
    device: torch.device | str,
) -> dict[str, Tensor]:
    """The tensors `wanted` (our name -> shape) of a folder; Mismatch names what does not fit."""
    state: dict[str, Tensor] = {}
    problems: list[str] = []

    def take(name: str, tensor: Tensor) -> None:
        own = own_name(name, config)
        if own is None:
            return
        if own.endswith(CONV1D) and config.family == "gpt2" and tensor.ndim == 2:
            tensor = tensor.T.contiguous()
        if own not in wanted:
            problems.append(f"extra {name[:80]}")
        elif tuple(tensor.shape) != wanted[own]:
            problems.append(f"{name[:80]} is {tuple(tensor.shape)}, not {wanted[own]}")
        else:
            state[own] = tensor.to(device=device, dtype=dtype)

    for path in weight_files(Path(folder)):
        tensor_file.read_tensors(path, take)
    problems += [f"missing {name}" for name in wanted if name not in state and not problems]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise Mismatch(
            f"{folder}: the weights do not fit config.json: {'; '.join(problems[:5])}{more}; "
            "take config.json and weights from one place"
        )
    return state


def _assemble(model: Transformer, state: dict[str, Tensor], device: Any) -> Transformer:
    model.load_state_dict(state, strict=False, assign=True)
    model.tie()
    if model.config.family != "gpt2":
        model.rope_frequencies = rope.inverse_frequencies(model.config).to(device)
    return model.eval()


def own_name(name: str, config: ModelConfig) -> str | None:
    """Our parameter's name for a name in a file; None for what is not a parameter.

    GPT-2's first files lack the prefix `transformer.`; a tied head's second copy is skipped.
    """
    if name.endswith(BUFFERS):
        return None
    if name == "lm_head.weight":
        return None if config.tie_embeddings else name
    if name == "score.weight":  # a reward model's
        return name
    if config.family == "gpt2" and not name.startswith("transformer."):
        return f"transformer.{name}"
    return name


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder; Refused when there are only pickles."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        return _shards(folder)
    for path in sorted(folder.iterdir()):
        if path.suffix in PICKLES:
            raise _pickle(path)
    raise NoInput(f"{folder}: no {SINGLE} there; give a Hugging Face model folder")


def _shards(folder: Path) -> list[Path]:
    index = read_json(folder / INDEX)
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not names:
        raise Mismatch(f"{folder / INDEX}: it has no weight_map; copy the file again")
    shards = sorted({str(name) for name in names.values()})
    for shard in shards:
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise Refused(f"{folder / INDEX}: weight_map names {shard[:80]!r}, not a plain file")
        if not (folder / shard).is_file():
            raise NoInput(f"{folder / shard}: the shard is missing; copy it again")
    return [folder / shard for shard in shards]


def _pickle(path: Path) -> Refused:
    return Refused(
        f"{path}: weights are read from safetensors only, since opening such a file can run code; "
        "convert it where you trust it"
    )


def _head_is_missing(folder: Path) -> bool:
    return all("lm_head.weight" not in tensor_file.read_header(p) for p in weight_files(folder))


def file_state(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """A state dict as files hold it: no tied head, GPT-2's matrices turned."""
    tensors = {}
    for name, tensor in state.items():
        if name == "lm_head.weight" and config.tie_embeddings:
            continue
        turn = config.family == "gpt2" and name.endswith(CONV1D)
        tensors[name] = tensor.T if turn else tensor
    return tensors


def save_model(
    model: Transformer,
    folder: Path | str,
    tokenizer: SavesItself | Path | str | None = None,
    generation_config: Mapping[str, Any] | None = None,
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a folder that transformers, vLLM, llama.cpp's converter and LM Studio open.

    tokenizer: an object with save(folder), or a folder whose tokenizer files are copied. dtype:
    cast to on writing (None: as it is). The same weights and settings give the same bytes; each
    file appears whole or not at all.
    """
    save_state(
        model.state_dict(),
        model.config,
        folder,
        tokenizer,
        generation_config,
        dtype=dtype,
        shard_bytes=shard_bytes,
    )


def save_state(
    state: Mapping[str, Tensor],
    config: ModelConfig,
    folder: Path | str,
    tokenizer: SavesItself | Path | str | None = None,
    generation_config: Mapping[str, Any] | None = None,
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
    classifier: Mapping[str, Any] | None = None,
) -> None:
    """save_model for weights gathered elsewhere: a full state dict under our names.

    classifier: keys of config.json for a model that scores and does not generate.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = file_state(state, config)
    if dtype is not None:
        tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    dtypes = {tensor.dtype for tensor in tensors.values()}
    stored = str(min(dtypes, key=lambda d: d.itemsize)).removeprefix("torch.")
    write_json(folder / "config.json", config.to_hf(stored) | dict(classifier or {}))
    if classifier is None:
        write_json(folder / "generation_config.json", _generation(config, generation_config))
    _write_weights(folder, tensors, shard_bytes)
    if isinstance(tokenizer, Path | str):
        for name in TOKENIZER_FILES:
            if (source := Path(tokenizer) / name).is_file():
                with open(source, "rb") as reader, atomic_write(folder / name) as writer:
                    shutil.copyfileobj(reader, writer)
    elif tokenizer is not None:
        tokenizer.save(folder)


def _generation(config: ModelConfig, extra: Mapping[str, Any] | None) -> dict[str, Any]:
    ids: dict[str, Any] = {}
    if config.bos_id is not None:
        ids["bos_token_id"] = config.bos_id
    if config.eos_ids:
        ids["eos_token_id"] = list(config.eos_ids) if len(config.eos_ids) > 1 else config.eos_ids[0]
    if config.pad_id is not None:
        ids["pad_token_id"] = config.pad_id
    return ids | dict(extra or {})


def _write_weights(folder: Path, tensors: dict[str, Tensor], shard_bytes: int) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    room = shard_bytes
    for name in sorted(tensors):
        size = tensors[name].numel() * tensors[name].dtype.itemsize
        if size > room and shards[-1]:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = tensors[name]
        room -= size
    if len(shards) == 1:
        tensor_file.write_tensors(folder / SINGLE, tensors)
        return
    weight_map: dict[str, str] = {}
    total = 0
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        total += tensor_file.write_tensors(folder / name, shard)
        weight_map |= dict.fromkeys(sorted(shard), name)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(folder / INDEX, index)
