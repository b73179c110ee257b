"""stages/NAME.yaml, rendered from each stage's dataclass: the contract, then every default.

`python -m llmctl.render stages` writes them; each file is itself a valid recipe.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from llmctl.core.config import Setting, settings_of, yaml_value
from llmctl.core.stage import Stage
from llmctl.stages import STAGES, load_stage

WIDTH = 98


def render(stage: Stage) -> str:
    """The YAML text of one stage."""
    reads = " or ".join("other files" if k == "foreign" else k for k in stage.reads)
    lines = [
        f"# llmctl {stage.name}: {STAGES[stage.name]}",
        f"# reads {reads or 'nothing'}; writes {stage.writes or 'to stdout'}; "
        f"version {stage.version}",
        "# Rendered from src/llmctl/stages by `make stages`; a valid recipe as it stands.",
        "",
        f"{stage.name}:",
    ]
    for knob in settings_of(stage.config).values():
        lines += [f"  # {line}" for line in textwrap.wrap(_comment(knob), WIDTH - 4)]
        lines.append(f"  {knob.name}: {yaml_value(knob.default)}")
    return "\n".join(lines) + "\n"


def _comment(knob: Setting) -> str:
    notes = [f"one of: {', '.join(knob.choices)}"] if knob.choices else []
    notes += [knob.unit] if knob.unit else []
    notes += [] if knob.payload else ["does not change the artifact"]
    return knob.help + (f" ({'; '.join(notes)})" if notes else "")


def write_all(folder: Path) -> list[Path]:
    """Write every stage's YAML into a folder; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in STAGES:
        path = folder / f"{name}.yaml"
        path.write_text(render(load_stage(name)), encoding="utf-8")
        paths.append(path)
    return paths


if __name__ == "__main__":
    for written in write_all(Path(sys.argv[1] if len(sys.argv) > 1 else "stages")):
        print(written, file=sys.stderr)
