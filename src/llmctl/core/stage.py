"""What a stage says of itself; the pipeline and the command line do the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One subcommand: its contract, its settings and the function that does the work.

    run(config, inputs, draft) -> stats fills `draft.path` when `writes` is a kind; when `writes` is
    None it prints its own result on stdout and `draft` is None. `version` is raised whenever the
    same settings and inputs would give other bytes than before.
    """

    name: str
    version: int
    summary: str  # one line, "documents -> token bins"
    config: type
    run: Callable[..., dict[str, Any] | None]
    dry_run: Callable[..., None] | None = None
    reads: tuple[str, ...] = ()  # kinds of INPUT; "foreign" is any file or folder not ours
    writes: str | None = None
    upstream: str | None = None  # the stage whose tiny artifact is the default INPUT
    many: bool = False  # takes several INPUTs
    optional_input: bool = False  # does something useful without an INPUT
    raw_inputs: bool = False  # takes any path, finished or not, and opens it itself
    volatile: tuple[str, ...] = ()  # files and folders outside the id: times, speeds, state
    remote: bool = False  # reads URLs as well
    path_settings: tuple[str, ...] = ()  # settings that name further inputs, hashed by content
    text_mode: Callable[[Any], bool] = field(default=lambda config: False)  # prints, no artifact

    @property
    def module(self) -> str:
        """The stage's name as Python and YAML write it."""
        return self.name.replace("-", "_")
