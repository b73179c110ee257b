"""Every shipped recipe is read strictly and repeats no default."""

import pytest

from llmctl.core.config import read_recipe, recipe_names, resolve, settings_of
from llmctl.stages import STAGES, load_stage


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_is_valid_and_holds_only_differences(name):
    for stage_name, section in read_recipe(name, list(STAGES)).items():
        config = load_stage(stage_name).config
        resolve(config, section, {}, name)
        for key, value in section.items():
            knob = settings_of(config)[key]
            assert knob.coerce(value, name) != knob.default, f"{stage_name}.{key} is the default"


def test_tiny_is_shipped():
    assert "tiny" in recipe_names()
