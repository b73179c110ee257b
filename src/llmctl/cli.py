"""The command line: one typer command a stage, its flags built from the stage's dataclass.

Only the stage that is named gets imported, and nothing heavy before its help is printed. Errors
become one line on stderr and the exit code of core/errors.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TextIO

import typer

from llmctl import __version__
from llmctl.core import console, signals
from llmctl.core.config import Setting, parse_assignments, settings_of, yaml_value
from llmctl.core.errors import LlmctlError, UsageError, exit_code_rows, from_exception
from llmctl.core.stage import Stage
from llmctl.launch import find_inputs
from llmctl.stages import STAGES, load_stage

ABOUT = """Build a ChatGPT end to end, on machines you own.

Each command reads and writes artifacts (folders) and prints its artifact's path, so commands
compose: llmctl crawl-filter my.warc.gz | llmctl tokenize | llmctl pretrain | llmctl generate -p The

With no INPUT a command takes the embedded default, a synthetic web, made on the spot."""
_WORDS = {int: "INT", float: "FLOAT", str: "TEXT", tuple: "TEXT"}


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit code. Never raises, never prints a traceback unasked."""
    argv = ["--help" if word == "-h" else word for word in argv] or ["--help"]
    if argv == ["--version"]:
        print(f"llmctl {__version__}")
        return 0
    debug = "--debug" in argv
    try:
        signals.install()
        return _app(argv)(list(argv), prog_name="llmctl", standalone_mode=False) or 0
    except BaseException as raised:
        error = _unwrapped(raised)
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter complains at exit
            return 141
        if debug and not isinstance(error, LlmctlError):
            traceback.print_exception(error)
        return _explain(error)


def rank_main() -> int:
    """This process is one rank of a stage: do its share, leave stats or error for the starter."""
    from llmctl.core import ranks
    from llmctl.pipeline import run_rank

    task = json.loads(os.environ[ranks.TASK])
    os.dup2(2, 1)  # a rank has nothing to say on stdout
    signals.die_with_parent()  # else a killed run's ranks would go on writing into its folder
    try:
        signals.install()
        ranks.report_rank(task, {"stats": run_rank(task)})
        return 0
    except BaseException as error:
        known = from_exception(error)
        if known is None:
            traceback.print_exc()
            known = LlmctlError(f"{type(error).__name__}: {error}; a bug of llmctl")
        ranks.report_rank(task, {"code": known.code, "message": str(known), "at": time.time()})
        return known.code


class _Carried(Exception):
    """Takes a stage's error past typer, which makes exits of its own of Ctrl-C and closed pipes."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


def _unwrapped(raised: BaseException) -> BaseException:
    """The error itself, also when a printing command's closed pipe has become a SystemExit."""
    if isinstance(raised, _Carried):
        return raised.error
    if isinstance(raised, SystemExit) and isinstance(raised.__context__, BrokenPipeError):
        return raised.__context__
    return raised


def _explain(error: BaseException) -> int:
    """Print the one line that says what was wrong, and return its exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    known = from_exception(error)
    if known is None and hasattr(error, "format_message"):  # typer's own usage errors
        known = UsageError(error.format_message().rstrip(".") + "; see --help")
    if known is None and type(error).__name__ in ("Abort", "Exit"):
        return int(getattr(error, "exit_code", 130))
    if known is None:
        import tempfile

        with tempfile.NamedTemporaryFile(
            "w", prefix="llmctl-traceback-", suffix=".txt", delete=False
        ) as file:
            traceback.print_exception(error, file=file)
        known = LlmctlError(
            f"{type(error).__name__}: {error}; a bug of llmctl, please report {file.name}"
        )
    text = console.printable(" ".join(str(known).split()))
    print(f"llmctl: error[{known.name}]: {text}", file=sys.stderr, flush=True)
    return known.code


def _app(argv: Sequence[str]) -> typer.Typer:
    """The typer app, with the named stage's command in full and the others as one line each."""
    app = typer.Typer(
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
        help=ABOUT,
        no_args_is_help=True,
    )
    app.callback()(_root)
    named = next((word for word in argv if not word.startswith("-")), None)
    for name, line in STAGES.items():
        body = _command(load_stage(name)) if name == named else _unused
        app.command(name, help=_help(name) if name == named else line, short_help=line)(body)
    app.command("help", help="exit codes, recipes, or a command's help")(_help_command)
    return app


def _root(
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
) -> None:
    """The options before a command; `main` answers --version itself."""


def _unused() -> None:
    """Stands for a stage that was not named."""


def _help(name: str) -> str:
    stage = load_stage(name)
    reads = " or ".join("other files" if k == "foreign" else k for k in stage.reads)
    contract = f"Reads {reads or 'nothing'}; writes {stage.writes or 'to stdout'}."
    return f"{STAGES[name][0].upper()}{STAGES[name][1:]}.\n\n{contract}"


def _help_command(
    topic: Annotated[str, typer.Argument(help="exit-codes, recipes, or a command")] = "",
) -> int:
    if topic == "exit-codes":
        print(console.render_table("", ["code", "name", "meaning"], exit_code_rows(), left=3))
    elif topic == "recipes":
        from llmctl.core.config import recipe_names

        print("\n".join(recipe_names()))
    else:
        return _app([topic])([topic, "--help"] if topic else ["--help"], standalone_mode=False) or 0
    return 0


def _flag(knob: Setting) -> Any:
    """The typer option for a setting. Values stay text here; the setting parses them."""
    name = "--" + knob.name.replace("_", "-")
    names = [knob.flag, name] if knob.flag else [name]
    default = "none" if knob.default in (None, ()) else yaml_value(knob.default).strip('"')
    notes = [f"one of: {', '.join(knob.choices)}"] if knob.choices else []
    notes += [knob.unit] if knob.unit else []
    notes += ["repeatable"] if knob.many else []
    notes += [f"default {default or 'empty'}"]
    help = f"{knob.help} ({'; '.join(notes)})"
    if knob.type is bool:
        yes_no = f"{name}/--no-{name[2:]}"
        return Annotated[bool | None, typer.Option(yes_no, help=help)]
    kind = list[str] | None if knob.many else str | None
    return Annotated[kind, typer.Option(*names, help=help, metavar=_WORDS[knob.type])]


def _common(stage: Stage) -> list[inspect.Parameter]:
    """The options every stage has."""
    knobs: dict[str, tuple[Any, Any]] = {}
    if stage.reads:
        kinds = " or ".join("other files" if k == "foreign" else k for k in stage.reads)
        none = "the folder runs" if stage.optional_input else "the pipe, or the embedded default"
        argument = typer.Argument(metavar="[INPUT]...", help=f"{kinds}; none: {none}")
        knobs["inputs"] = (Annotated[list[str] | None, argument], None)

    def option(name: str, kind: Any, default: Any, *flags: str, help: str) -> None:
        knobs[name] = (Annotated[kind, typer.Option(*flags, help=help)], default)

    if stage.writes:
        option("out", str | None, None, "-o", "--out", help="folder to write (default runs/…)")
        option("force", bool, False, "--force", help="replace another run's artifact at -o")
    option("recipe", str | None, None, "--recipe", help="a YAML file, or a shipped recipe's name")
    option("assign", list[str] | None, None, "--set", help="key=value, repeatable")
    if stage.dry_run:
        option("dry", bool, False, "--dry-run", help="say what would be read, written and cost")
    option("show", bool, False, "--show-config", help="print each setting and where it came from")
    option("no_verify", bool, False, "--no-verify", help="check sizes only, not hashes, of inputs")
    option("debug", bool, False, "--debug", help="print tracebacks")
    kind = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(f"_{name}", kind, default=default, annotation=annotation)
        for name, (annotation, default) in knobs.items()
    ]


def _command(stage: Stage) -> Any:
    """A function with one keyword per setting and per common option, for typer to read."""
    knobs = settings_of(stage.config)
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_flag(k))
        for name, k in knobs.items()
    ]

    def command(**given: Any) -> int:
        common = {key[1:]: given.pop(key) for key in list(given) if key.startswith("_")}
        overrides = parse_assignments(stage.config, common["assign"] or [])
        for name, value in given.items():
            if value is None or (knobs[name].many and not value):
                continue
            knob = knobs[name]
            where = "--" + name.replace("_", "-")
            typed = knob.type in (bool, tuple)
            overrides[name] = knob.coerce(value, where) if typed else knob.parse(value, where)
        try:
            return _run(stage, overrides, common)
        except BaseException as error:
            raise _Carried(error) from error

    command.__signature__ = inspect.Signature([*_common(stage), *parameters])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in [*_common(stage), *parameters]}
    return command


def _run(stage: Stage, overrides: dict[str, Any], common: dict[str, Any]) -> int:
    """One command after its words are parsed."""
    from llmctl import pipeline

    request = pipeline.Request(
        stage=stage.name,
        out=common.get("out"),
        recipe=common["recipe"],
        overrides=overrides,
        force=common.get("force", False),
        verify=not common["no_verify"],
    )
    words = common.get("inputs") or []
    if common["show"]:
        shown = dataclasses.replace(request, inputs=words or None)
        _show_config(stage, pipeline.resolve(shown)[1])
        return 0
    given = dataclasses.replace(request, inputs=words)
    _, resolved = pipeline.resolve(given)  # a misspelt key is found before stdin is read
    request = dataclasses.replace(request, inputs=find_inputs(stage, words, request.out))
    if common.get("dry"):
        pipeline.dry_run(request)
        return 0
    if stage.writes is None or stage.text_mode(resolved.config):
        pipeline.execute(request)
        return 0
    with _reserved_stdout() as stdout:
        artifact = pipeline.execute(request)
        if artifact is not None:
            print(artifact.path, file=stdout, flush=True)
    return 0


def _show_config(stage: Stage, resolved: Any) -> None:
    rows = [(name, yaml_value(value)) for name, value in vars(resolved.config).items()]
    width = max(len(f"{name}: {value}") for name, value in rows)
    print(f"{stage.name}:")
    for name, value in rows:
        print(f"  {f'{name}: {value}'.ljust(width)}  # {resolved.sources[name]}")


@contextlib.contextmanager
def _reserved_stdout() -> Iterator[TextIO]:
    """stdout for the artifact's path alone: whatever else prints there goes to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(kept, "w") as stdout:
            yield stdout
    finally:
        sys.stdout.flush()
