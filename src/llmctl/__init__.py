"""llmctl: a ChatGPT end to end, on machines you own.

`from llmctl import run` runs a stage from Python as the command line does:
`run("tokenize", ["docs"], out="tokens", vocab_size=4096)` returns the finished artifact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "open_artifact", "run"]

if TYPE_CHECKING:
    from llmctl.artifacts.store import open_artifact
    from llmctl.pipeline import run


def __getattr__(name: str) -> Any:
    if name == "run":
        from llmctl.pipeline import run

        return run
    if name == "open_artifact":
        from llmctl.artifacts.store import open_artifact

        return open_artifact
    raise AttributeError(name)
