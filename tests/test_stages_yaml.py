"""stages/*.yaml say what the dataclasses say, and are recipes themselves."""

from pathlib import Path

import pytest
import yaml

from llmctl.core.config import read_recipe, resolve
from llmctl.render import render
from llmctl.stages import STAGES, load_stage

FOLDER = Path(__file__).parents[1] / "stages"


@pytest.mark.parametrize("name", STAGES)
def test_rendered_file_is_fresh(name):
    assert (FOLDER / f"{name}.yaml").read_text() == render(load_stage(name)), "run `make stages`"


@pytest.mark.parametrize("name", STAGES)
def test_rendered_file_is_a_recipe_of_the_defaults(name):
    stage = load_stage(name)
    section = read_recipe(str(FOLDER / f"{name}.yaml"), list(STAGES))[name]
    assert resolve(stage.config, section, {}).config == stage.config()


def test_no_file_is_left_from_a_stage_that_has_gone():
    assert {p.stem for p in FOLDER.glob("*.yaml")} == set(STAGES)


def test_yaml_is_plain():
    for path in FOLDER.glob("*.yaml"):
        assert list(yaml.safe_load(path.read_text())) == [path.stem]
