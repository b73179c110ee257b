"""Settings: layers in order, strict types, and what is refused."""

from dataclasses import dataclass

import pytest
import yaml

from llmctl.core.config import (
    parse_assignments,
    payload_settings,
    read_recipe,
    resolve,
    setting,
    settings_of,
    yaml_value,
)
from llmctl.core.errors import NoInput, UsageError
from llmctl.stages import STAGES


@dataclass(frozen=True, kw_only=True)
class Toy:
    lr: float = setting(3e-4, "learning rate")
    steps: int = setting(100, "steps")
    name: str = setting("a", "a word", choices=("a", "b"))
    words: tuple[str, ...] = setting((), "words")
    depth: int | None = setting(None, "depth")
    fast: bool = setting(False, "fast")
    workers: int = setting(0, "processes", payload=False)


def test_recipe_beats_default_and_flag_beats_recipe():
    resolved = resolve(Toy, {"steps": 5, "lr": 1.0}, {"lr": 2.0}, "recipe r")
    assert (resolved.config.steps, resolved.config.lr, resolved.config.name) == (5, 2.0, "a")
    assert resolved.sources["steps"] == "recipe r"
    assert resolved.sources["lr"] == "command line"
    assert resolved.sources["name"] == "default"


def test_unknown_key_names_the_nearest():
    with pytest.raises(UsageError, match="unknown key 'step'; did you mean 'steps'"):
        resolve(Toy, {"step": 5}, {})
    with pytest.raises(UsageError, match="did you mean 'steps'"):
        parse_assignments(Toy, ["stepz=5"])


def test_yaml_number_read_as_text_is_explained():
    with pytest.raises(UsageError, match="3.0e-4"):
        resolve(Toy, yaml.safe_load("lr: 3e-4"), {})


@pytest.mark.parametrize(
    "section", [{"steps": 1.5}, {"steps": True}, {"fast": 1}, {"name": "c"}, {"lr": float("nan")}]
)
def test_wrong_types_and_values_are_refused(section):
    with pytest.raises(UsageError):
        resolve(Toy, section, {})


def test_assignments_parse_to_types():
    words = ["lr=3e-4", "steps=1_000", "fast=yes", "words=a,b", "depth=none", "name=b"]
    assert parse_assignments(Toy, words) == {
        "lr": 3e-4,
        "steps": 1000,
        "fast": True,
        "words": ("a", "b"),
        "depth": None,
        "name": "b",
    }


def test_whole_numbers_in_scientific_form_are_whole_numbers():
    assert parse_assignments(Toy, ["steps=1e6"]) == {"steps": 1_000_000}
    with pytest.raises(UsageError):
        parse_assignments(Toy, ["steps=1e-3"])


def test_fingerprint_holds_only_payload_keys_that_differ():
    assert payload_settings(Toy(workers=8)) == {}
    assert payload_settings(Toy(lr=1.0, words=("x",))) == {"lr": 1.0, "words": ["x"]}


@pytest.mark.parametrize("value", [1e-8, 3e-4, 1e20, 5, True, None, "a: b", "", ("x", "y"), 0.1])
def test_yaml_value_comes_back_as_it_was(value):
    back = yaml.safe_load(f"k: {yaml_value(value)}")["k"]
    assert (tuple(back) if isinstance(back, list) else back) == value


def test_recipe_faults_are_named(tmp_path):
    def recipe(text: str):
        path = tmp_path / "r.yaml"
        path.write_text(text)
        return read_recipe(str(path), ["toy"])

    assert recipe("toy:\n  steps: 3\n") == {"toy": {"steps": 3}}
    assert recipe("toy:\n") == {"toy": {}}
    with pytest.raises(UsageError, match="stands twice"):
        recipe("toy:\n  steps: 3\n  steps: 4\n")
    with pytest.raises(UsageError, match="unknown section 'toi'; did you mean 'toy'"):
        recipe("toi:\n  steps: 3\n")
    with pytest.raises(UsageError, match="not valid YAML"):
        recipe("toy: [1,\n")
    with pytest.raises(UsageError, match="not valid YAML"):
        recipe("toy: 2020-13-45\n")
    with pytest.raises(UsageError, match="unknown recipe 'tinny'; did you mean 'tiny'"):
        read_recipe("tinny", ["toy"])
    with pytest.raises(NoInput):
        read_recipe(str(tmp_path / "none.yaml"), ["toy"])


def test_shipped_recipe_is_found_beside_a_folder_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert "tokenize" in read_recipe("tiny", list(STAGES))


def test_optional_and_tuple_are_recognised():
    knobs = settings_of(Toy)
    assert knobs["depth"].optional and knobs["depth"].type is int
    assert knobs["words"].many and not knobs["lr"].optional
