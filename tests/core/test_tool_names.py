"""--tools says the same everywhere: commas, spaces, and each tool once."""

import pytest

from llmctl.core.errors import UsageError
from llmctl.core.tool_names import NAMES, tool_names
from llmctl.stages.chat import ChatConfig
from llmctl.stages.eval import EvalConfig
from llmctl.stages.generate import GenerateConfig

WORDS = ("search, python", "python,")


def test_every_stage_reads_the_same_words_alike():
    wanted = ("search", "python")
    assert tool_names(WORDS) == wanted and tool_names(("",)) == () and set(wanted) == set(NAMES)
    assert EvalConfig(tools=WORDS, tasks=("t",)).tool_names == wanted
    assert GenerateConfig(tools=WORDS).tool_names == wanted
    assert ChatConfig(tools=WORDS).tool_names() == wanted


@pytest.mark.parametrize("config", [ChatConfig, EvalConfig, GenerateConfig])
def test_an_unknown_tool_is_named(config):
    with pytest.raises(UsageError, match="no tool 'pyton'; did you mean 'python'"):
        config(tools=("search, pyton",))
