"""Samples that fail, and being stopped while one is made."""

import pytest

from llmctl.core.errors import BadInput, Cancelled, Interrupted
from llmctl.train.hooks import attempt, show_sample


def failing(error):
    def generate():
        raise error

    return generate


@pytest.mark.parametrize("error", [BadInput("longer than the context"), ValueError("odd")])
def test_a_sample_that_fails_costs_a_warning_only(error, capsys):
    assert attempt(failing(error), 7) is None
    assert "step 7: no sample" in capsys.readouterr().err
    world = type("World", (), {"is_main": True})()
    assert show_sample(failing(error), world, None)(7) == {"sample_failed": 1}


@pytest.mark.parametrize("error", [Interrupted, Cancelled])
def test_being_stopped_is_no_failed_sample(error):
    with pytest.raises(error):
        attempt(failing(error("stopped")), 7)
