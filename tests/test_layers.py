"""Imports point down: a room may use itself and the rooms below it, siblings never meet."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "llmctl"
LEVELS = {
    "core": 0,
    "artifacts": 1,
    "sandbox": 1,
    "tokenizer": 2,
    "data": 3,
    "model": 3,
    "web": 3,
    "synth": 3,
    "infer": 4,
    "reward": 5,
    "evals": 6,
    "view": 6,
    "chat": 6,
    "train": 7,
    "stages": 8,
    "pipeline": 9,
    "render": 9,
    "launch": 9,
    "cli": 10,
    "__main__": 11,
    "__init__": 11,
}
FILES = sorted(SOURCE.rglob("*.py"))


def room(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py")


def imported_modules(path: Path) -> list[str]:
    """Names below llmctl that a file imports, at its top or inside functions."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names += [f"{node.module}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names += [a.name for a in node.names]
    return [n.removeprefix("llmctl.") for n in names if n.startswith("llmctl.")]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path):
    mine = room(path.relative_to(SOURCE).parts)
    for name in imported_modules(path):
        other = name.split(".")[0]
        if other == "__version__" or mine == "__init__":
            continue
        assert other in LEVELS, f"{other}: give this room a level"
        if mine == other == "stages":
            inside = name.split(".")[1]
            assert path.name == "__init__.py" or inside == path.stem, f"{path.name} uses {name}"
        elif mine != other:
            assert LEVELS[other] < LEVELS[mine], f"{mine} imports {other}, which is not below it"


def test_the_loop_knows_neither_evals_nor_inference():
    loop = SOURCE / "train" / "loop.py"
    assert not [n for n in imported_modules(loop) if n.split(".")[0] in ("evals", "infer")]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_rooms_stay_small(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_functions_stay_small(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 80, f"{node.name} at line {node.lineno}"


UNSAFE = ("eval", "exec", "os.system", "pickle.load", "pickle.loads", "torch.load")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_nothing_unsafe_is_called(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        assert name not in UNSAFE
        shell = [k for k in node.keywords if k.arg == "shell" and ast.unparse(k.value) == "True"]
        assert not shell, f"shell=True at line {node.lineno}"
