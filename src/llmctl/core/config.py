"""Settings: one frozen dataclass a stage, where every knob stands once.

Flags, `--set key=value`, recipe sections and stages/NAME.yaml are all views of that dataclass.
Default < recipe < --set / flag. Unknown keys and wrong types are refused by name.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl.core.errors import NoInput, UsageError, did_you_mean

RECIPE_LIMIT = 1 << 20  # bytes; a recipe is a page, not a data set


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    choices: Sequence[str] | None = None,
    payload: bool = True,
    flag: str | None = None,
) -> Any:
    """A field of a stage's config.

    help: what it is and why one would change it. unit: of the number. choices: the words allowed.
    payload: False for what cannot change the artifact's bytes (workers, logging), which stays out
    of the fingerprint. flag: a further flag name, such as "-p".
    """
    meta = {"help": help, "unit": unit, "choices": choices, "payload": payload, "flag": flag}
    return dataclasses.field(default=default, metadata=meta)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One knob of a stage, as the views need it."""

    name: str
    type: type
    optional: bool  # None is allowed
    default: Any
    help: str
    unit: str
    choices: tuple[str, ...]
    payload: bool
    flag: str | None

    @property
    def many(self) -> bool:
        """Whether the value is a tuple of strings."""
        return self.type is tuple

    def coerce(self, value: Any, where: str) -> Any:
        """The value in this knob's type, from YAML or Python; UsageError names what was wrong."""
        if value is None and self.optional:
            return None
        if self.type is float and type(value) is int:
            value = float(value)
        if self.many and isinstance(value, list | tuple) and all(type(v) is str for v in value):
            value = tuple(value)
        if type(value) is not self.type:
            raise UsageError(self._wrong(value, where))
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{where}: {self.name} must be a finite number, got {value}")
        for word in value if isinstance(value, tuple) else (value,):
            if self.choices and word not in self.choices:
                near = did_you_mean(str(word), list(self.choices))
                raise UsageError(f"{where}: {self.name} cannot be {word!r}{near}")
        return value

    def parse(self, text: str, where: str) -> Any:
        """The value a word on the command line stands for."""
        if self.optional and text.lower() in ("none", "null", ""):
            return None
        try:
            if self.type is int:
                return self.coerce(_integer(text), where)
            if self.type is float:
                return self.coerce(float(text), where)
        except ValueError:
            raise UsageError(self._wrong(text, where)) from None
        if self.type is bool:
            words = {"true": True, "yes": True, "on": True, "1": True}
            words |= {"false": False, "no": False, "off": False, "0": False}
            if text.lower() not in words:
                raise UsageError(self._wrong(text, where))
            return words[text.lower()]
        if self.many:
            return self.coerce(tuple(w for w in text.split(",") if w), where)
        return self.coerce(text, where)

    def _wrong(self, value: Any, where: str) -> str:
        hint = ""
        if self.type is float and isinstance(value, str):
            hint = " (YAML reads 3e-4 as text: write 3.0e-4)"
        name = {"tuple": "a list of words", "str": "text", "int": "a whole number"}
        name |= {"float": "a number", "bool": "true or false"}
        return f"{where}: {self.name} must be {name[self.type.__name__]}, got {value!r}{hint}"


def _integer(text: str) -> int:
    """'32_768', '32768' and '1e6' are whole numbers; '1.5' is not."""
    try:
        return int(text.replace(",", ""))
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise ValueError(text) from None
        return int(number)


@functools.cache
def settings_of(config: type) -> dict[str, Setting]:
    """The knobs of a config dataclass by name, in order: its own first, then what it inherits."""
    hints = typing.get_type_hints(config)
    found = {}
    order = [name for kind in config.__mro__ for name in inspect.get_annotations(kind)]
    for field in sorted(dataclasses.fields(config), key=lambda f: order.index(f.name)):
        hint, optional = hints[field.name], False
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
            inner = [a for a in typing.get_args(hint) if a is not type(None)]
            hint, optional = inner[0], True
        kind = typing.get_origin(hint) or hint
        meta = field.metadata
        found[field.name] = Setting(
            name=field.name,
            type=kind,
            optional=optional,
            default=field.default,
            help=meta["help"],
            unit=meta["unit"],
            choices=tuple(meta["choices"] or ()),
            payload=meta["payload"],
            flag=meta["flag"],
        )
    return found


@dataclasses.dataclass(frozen=True)
class Resolved:
    """A config and, for each key, where its value came from."""

    config: Any
    sources: dict[str, str]


def resolve(
    config: type, section: Mapping[str, Any], overrides: Mapping[str, Any], recipe: str = "recipe"
) -> Resolved:
    """Default < recipe section < overrides (already typed), checked key by key."""
    knobs = settings_of(config)
    values: dict[str, Any] = {}
    sources = dict.fromkeys(knobs, "default")
    for where, layer in ((recipe, section), ("command line", overrides)):
        for key, value in layer.items():
            if key not in knobs:
                raise UsageError(f"{where}: unknown key {key!r}{did_you_mean(key, list(knobs))}")
            values[key] = knobs[key].coerce(value, where)
            sources[key] = where
    return Resolved(config(**values), sources)


def parse_assignments(config: type, assignments: Sequence[str]) -> dict[str, Any]:
    """`--set key=value` words as typed values; a later one wins."""
    knobs, values = settings_of(config), {}
    for word in assignments:
        key, equals, text = word.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            raise UsageError(f"--set {word}: write it as key=value")
        if key not in knobs:
            raise UsageError(f"--set: unknown key {key!r}{did_you_mean(key, list(knobs))}")
        values[key] = knobs[key].parse(text.strip(), f"--set {key}")
    return values


def payload_settings(config: Any) -> dict[str, Any]:
    """The keys that differ from the defaults and can change the payload: the fingerprint's part."""
    kind: type = type(config)
    knobs = settings_of(kind)
    return {
        name: list(value) if isinstance(value := getattr(config, name), tuple) else value
        for name, knob in knobs.items()
        if knob.payload and getattr(config, name) != knob.default
    }


def as_dict(config: Any) -> dict[str, Any]:
    """Every setting with its value, as JSON can hold it."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(config).items()}


def recipes_folder() -> Path:
    """Where the shipped recipes lie: inside the wheel, or beside src/ in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parents[1] / "recipes"


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(p.stem for p in recipes_folder().glob("*.yaml"))


def read_recipe(name: str, stages: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A recipe's sections by stage name; `name` is a path, or the name of a shipped recipe."""
    path = Path(name)
    if not path.suffix and not path.is_file():  # a folder of that name is no recipe
        path = recipes_folder() / f"{name}.yaml"
        if not path.exists():
            raise UsageError(f"unknown recipe {name!r}{did_you_mean(name, recipe_names())}")
    if not path.is_file():
        raise NoInput(f"{path}: no such recipe; check the path, or use one of {recipe_names()}")
    if path.stat().st_size > RECIPE_LIMIT:
        raise UsageError(f"{path}: larger than {RECIPE_LIMIT:,} bytes; that is no recipe")
    sections = _load_yaml(path)
    for key, section in sections.items():
        if key not in stages:
            near = did_you_mean(str(key), list(stages))
            raise UsageError(f"{path}: unknown section {key!r}{near}")
        if not isinstance(section, dict):
            raise UsageError(f"{path}: section {key!r} must hold key: value lines")
    return sections


def _load_yaml(path: Path) -> dict[str, Any]:
    """YAML by the safe loader, refusing a key that stands twice (the first would be lost)."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader: Loader, node: Any) -> dict[Any, Any]:
        keys = [loader.construct_object(key) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise UsageError(f"{path}: key {key!r} stands twice; keep one")
        return loader.construct_mapping(node)

    Loader.add_constructor("tag:yaml.org,2002:map", mapping)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506 a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise UsageError(f"{path}: a recipe is sections, one a stage, each with key: value lines")
    return {k: {} if v is None else v for k, v in content.items()}


def yaml_value(value: Any) -> str:
    """A setting's value as it is written in YAML, so that PyYAML reads the same type back."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        text = repr(value)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    if isinstance(value, tuple | list):
        return "[" + ", ".join(yaml_value(v) for v in value) + "]"
    if isinstance(value, str):
        import json

        return json.dumps(value, ensure_ascii=False)
    return str(value)
