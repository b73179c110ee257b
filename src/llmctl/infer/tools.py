"""The tools a model may call: `python` in the sandbox, `search` over documents."""

from __future__ import annotations

from llmctl.infer.toolbox import Tool, ToolBox

__all__ = ["Tool", "ToolBox"]
