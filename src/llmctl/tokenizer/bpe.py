"""The tokenizer: text to ids and back, from a tokenizer.json of ours or of others.

Text is always encoded as text. The control tokens of a tokenizer.json are taken out before the
encoder is built, so no web page, prompt or document can spell one; control ids come from code.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from llmctl.core.errors import BadInput, Mismatch, NoInput
from llmctl.core.files import atomic_write, write_json
from llmctl.tokenizer.patterns import EOT, from_letters

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"
SIZE_LIMIT = 64 << 20  # bytes of a tokenizer.json; the largest in common use has 35 MB
ID_LIMIT = 1 << 24  # ids beyond it belong to no model
PAD_TO = 128  # vocabularies are padded to a multiple of it: matrix products like that
DOCUMENT_TOKENS = (EOT, "<|end_of_text|>", "<|eot|>", "</s>", "<eos>")  # what ends a document
_CONTROL = re.compile(r"[<\[].*[>\]]", re.DOTALL)
_BYTE_FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")
_CONFIG_KEYS = ("bos_token", "eos_token", "pad_token", "unk_token", "chat_template")


def clean_text(text: str) -> str:
    """Text that UTF-8 can hold: surrogate pairs joined, lone surrogates become U+FFFD."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def padded(size: int) -> int:
    """The next multiple of PAD_TO."""
    return -(-size // PAD_TO) * PAD_TO


class Tokenizer:
    """A BPE tokenizer. Immutable; made by `load`, by training or from a rank file."""

    def __init__(
        self, raw: bytes, config: dict[str, Any] | None = None, source: str = FILE
    ) -> None:
        """raw: the bytes of a tokenizer.json. Mismatch (78) when it is not one we can trust."""
        self.raw, self.config, self.source = raw, config or {}, source
        self.parts = _checked_parts(raw, source)
        self._added = {t["content"]: t["id"] for t in self.parts.get("added_tokens") or []}
        ids = {**self.parts["model"]["vocab"], **self._added}
        self.n_ids = 1 + max(ids.values())
        self._ids = ids

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """From a tokenizer.json, a folder that holds one, a .tiktoken file, or a name: "gpt2",
        "cl100k" as text; a Path of that name is a folder."""
        if path in ("gpt2", "cl100k", "o200k") or str(path).endswith(".tiktoken"):
            from llmctl.tokenizer.ranks import load_ranks

            return load_ranks(path)
        path = Path(path)
        file = path / FILE if path.is_dir() else path
        if not file.is_file():
            raise NoInput(f"{file}: no such file; name a tokenizer.json or a folder that holds one")
        size = file.stat().st_size
        if size > SIZE_LIMIT:
            raise Mismatch(f"{file}: {size:,} bytes, a tokenizer.json has at most {SIZE_LIMIT:,}")
        return cls(file.read_bytes(), _beside(file), str(file))

    @classmethod
    def of_model(cls, folder: Path) -> Tokenizer:
        """That of a model folder. Mismatch (78) when the weights lie there without one."""
        if not (folder / FILE).is_file():
            raise Mismatch(f"{folder}: no {FILE} beside the weights; copy it there")
        return cls.load(folder)

    def encode(self, text: str) -> list[int]:
        """Ids of a text; a control token spelt in it stays text. Lone surrogates are replaced."""
        return self._text.encode(clean_text(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        batch = [clean_text(t) for t in texts]
        return [e.ids for e in self._text.encode_batch_fast(batch, add_special_tokens=False)]

    def encode_offsets(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Ids of each text, and the stretch [start, end) of its characters each id stands for."""
        batch = [clean_text(t) for t in texts]
        found = self._text.encode_batch(batch, add_special_tokens=False)
        return [(e.ids, e.offsets) for e in found]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes ids stand for. Padding ids stand for nothing; ValueError beyond them."""
        table = self.token_bytes
        try:
            return b"".join([table[i] for i in ids])
        except IndexError:
            raise ValueError(f"an id is not below {self.vocab_size:,}") from None

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """The text of ids, control tokens spelt out unless skipped; broken UTF-8 is U+FFFD."""
        if skip_special:
            ids = [i for i in ids if i not in self.special_ids]
        text = self.decode_bytes(ids).decode("utf-8", "replace")
        return text if self.byte_level else text.removeprefix(" ")

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """The bytes of each id 0..vocab_size-1; b"" for padding."""
        table = [b""] * self.vocab_size
        for token, i in self.parts["model"]["vocab"].items():
            table[i] = self._bytes_of(token)
        for token, i in self._added.items():
            table[i] = token.encode()
        return table

    def _bytes_of(self, token: str) -> bytes:
        if self.byte_level:
            found = from_letters(token)
            return token.encode() if found is None else found
        if match := _BYTE_FALLBACK.fullmatch(token):
            return bytes([int(match[1], 16)])
        return token.replace("▁", " ").encode()

    @cached_property
    def byte_level(self) -> bool:
        """Whether tokens are bytes (GPT-2's way), not characters (SentencePiece's way)."""
        return '"ByteLevel"' in json.dumps(
            [self.parts.get(k) for k in ("pre_tokenizer", "decoder")]
        )

    @cached_property
    def _text(self) -> Any:
        """The reference encoder, without control tokens."""
        import tokenizers

        kept = [t for t in self.parts.get("added_tokens") or [] if not _is_control(t)]
        parts = {**self.parts, "added_tokens": kept, "truncation": None, "padding": None}
        parts["post_processor"] = None
        try:
            return tokenizers.Tokenizer.from_str(json.dumps(parts))
        except Exception as error:  # the library raises bare Exception
            raise Mismatch(
                f"{self.source}: not readable by the tokenizers library ({error}); fetch it again"
            ) from None

    @property
    def vocab_size(self) -> int:
        """Ids of the vocabulary, control tokens and padding included."""
        return padded(self.n_ids)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of control tokens."""
        return frozenset(t["id"] for t in self.parts.get("added_tokens") or [] if _is_control(t))

    @cached_property
    def eot_id(self) -> int:
        """The id put before each document: <|endoftext|>, or what stands for it here."""
        named = self.config.get("eos_token")
        named = named.get("content") if isinstance(named, dict) else named
        for token in (*DOCUMENT_TOKENS, named):
            if isinstance(token, str) and token in self._ids:
                return self._ids[token]
        raise Mismatch(
            f"{self.source}: no token that ends a document ({', '.join(DOCUMENT_TOKENS)}) "
            "and no eos_token in tokenizer_config.json; add one"
        )

    def id_of(self, special: str) -> int | None:
        """The id of a control token; None when the vocabulary has none such."""
        return self._added.get(special)

    @cached_property
    def hash(self) -> str:
        """sha256 (hex) of tokenizer.json."""
        return hashlib.sha256(self.raw).hexdigest()

    def save(self, folder: Path | str) -> None:
        """Write tokenizer.json, byte for byte as loaded, and a tokenizer_config.json beside it."""
        folder = Path(folder)
        with atomic_write(folder / FILE) as handle:
            handle.write(self.raw)
        eot = next(t for t, i in self._ids.items() if i == self.eot_id)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": eot,
            "eos_token": eot,
            "clean_up_tokenization_spaces": False,
        }
        write_json(folder / CONFIG, config | self.config)


def _is_control(token: dict[str, Any]) -> bool:
    """Whether an added token is for code alone. Others, such as runs of spaces, are text."""
    return bool(token.get("special")) or bool(_CONTROL.fullmatch(token["content"]))


def _beside(file: Path) -> dict[str, Any]:
    """What is kept of the files beside a tokenizer.json: names of tokens, the chat template."""
    from llmctl.core.files import read_json

    path, template = file.with_name(CONFIG), file.with_name(TEMPLATE_FILE)
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict):
        raise Mismatch(f"{path}: not a JSON object; fetch it again")
    if template.is_file():  # newer folders keep it in a file of its own, which then counts
        with open(template, "rb") as handle:
            found = {**found, "chat_template": handle.read(1 << 20).decode("utf-8", "replace")}
    kinds = {k: str | dict for k in _CONFIG_KEYS} | {"chat_template": str | list}
    return {k: found[k] for k in _CONFIG_KEYS if isinstance(found.get(k), kinds[k])}


def _checked_parts(raw: bytes, source: str) -> dict[str, Any]:
    """A tokenizer.json parsed and checked: BPE, every id a token's and no token's twice."""
    if len(raw) > SIZE_LIMIT:
        raise Mismatch(f"{source}: {len(raw):,} bytes, a tokenizer.json has up to {SIZE_LIMIT:,}")
    try:
        parts = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{source}: not valid JSON ({error}); fetch it again") from None
    model = parts.get("model") if isinstance(parts, dict) else None
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(vocab, dict) or not vocab:
        raise Mismatch(f"{source}: no tokenizer.json of a BPE model; check the path")
    if model.get("type", "BPE") != "BPE":
        raise Mismatch(f"{source}: a {model['type']} model; llmctl reads BPE")
    added = parts.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(t, dict) for t in added):
        raise Mismatch(f"{source}: added_tokens is no list of objects; fetch it again")
    owner: dict[int, str] = {}
    for token, i in [*vocab.items(), *((t.get("content"), t.get("id")) for t in added)]:
        if type(token) is not str or type(i) is not int or not 0 <= i < ID_LIMIT:
            raise Mismatch(f"{source}: token {token!r} has id {i!r}; fetch it again")
        if owner.setdefault(i, token) != token:
            raise Mismatch(f"{source}: id {i} belongs to {owner[i]!r} and {token!r}; fetch again")
    if len({t["content"] for t in added}) != len(added):
        raise Mismatch(f"{source}: an added token stands twice; fetch the file again")
    if len(vocab) != len({*vocab.values()}) or max(owner) >= 2 * len(owner) + 1024:
        raise Mismatch(f"{source}: ids leave wide gaps or repeat; fetch the file again")
    if any(vocab.get(t["content"], t["id"]) != t["id"] for t in added):
        raise Mismatch(f"{source}: an added token has another id in the vocabulary; fetch again")
    return parts
