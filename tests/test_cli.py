"""The command line as scripts see it: exit codes, one line on stdout, fast help."""

import subprocess
import sys

import pytest

from llmctl.stages import STAGES

HEAVY = ("torch", "numpy", "pyarrow", "datatrove", "transformers", "rich", "tokenizers")
HEAVY += ("prompt_toolkit", "jinja2")


def last_line(done) -> str:
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in STAGES)])
def test_help_imports_nothing_heavy(words):
    code = (
        "import sys; from llmctl import cli; code = cli.main(sys.argv[1:])\n"
        f"heavy = [m for m in {HEAVY} if m in sys.modules]\n"
        "assert not heavy, heavy; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage: llmctl" in done.stdout


def test_no_command_shows_help(llmctl):
    assert "Commands:" in llmctl().stdout + llmctl().stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["tokenise"], 2, "tokenize"),
        (["tokenize", "--vocab-sise", "5"], 2, "vocab-size"),
        (["tokenize", "--set", "vocab_sise=5"], 2, "did you mean 'vocab_size'"),
        (["tokenize", "--vocab-size", "many"], 2, "must be a whole number"),
        (["tokenize", "x", "--recipe", "tinny"], 2, "did you mean 'tiny'"),
        (["tokenize", "nothing.parquet"], 66, "nothing.parquet"),
        (["pretrain", "-o", "out"], 2, "no INPUT"),
        (["generate", "nothing", "-p", "x"], 66, "nothing"),
    ],
)
def test_wrong_words_get_one_sentence_and_a_code(llmctl, words, code, said):
    done = llmctl(*words)
    assert done.returncode == code, done.stderr
    assert said in last_line(done)
    assert last_line(done).startswith("llmctl: error[")
    assert "Traceback" not in done.stderr and not done.stdout


def test_version_and_the_short_way_to_help(capsys):
    from llmctl import __version__, cli

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"llmctl {__version__}\n"
    for words in ([], ["-h"], ["synth", "-h"]):
        assert cli.main(words) == 0
        assert "Usage: llmctl" in capsys.readouterr().out


def test_empty_pipe_is_told_and_starts_nothing(llmctl, tmp_path):
    done = llmctl("pretrain", stdin="\n")
    assert done.returncode == 66 and "no artifact arrived on stdin" in last_line(done)
    assert not list(tmp_path.iterdir())


def test_exit_code_table_is_printed(llmctl):
    done = llmctl("help", "exit-codes")
    assert done.returncode == 0
    for code in (0, 2, 65, 66, 70, 71, 73, 74, 75, 76, 77, 78, 79, 130, 141):
        assert f"\n{code} " in done.stdout


def test_show_config_says_where_each_value_came_from(llmctl):
    done = llmctl("tokenize", "--show-config", "--vocab-size", "512")
    assert done.returncode == 0, done.stderr
    line = next(x for x in done.stdout.splitlines() if x.strip().startswith("vocab_size:"))
    assert "512" in line and "command line" in line


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (BrokenPipeError(), 141), (ZeroDivisionError(), 70)],
)
def test_what_a_stage_raises_reaches_the_exit_code(monkeypatch, capsys, error, code):
    from llmctl import cli, pipeline

    def fail(request):
        raise error

    monkeypatch.setattr(pipeline, "execute", fail)
    monkeypatch.setattr(cli.os, "dup2", lambda a, b: None)
    monkeypatch.setattr(cli.signals, "install", lambda: None)
    assert cli.main(["synth", "-o", "x"]) == code
    said = capsys.readouterr().err
    assert "Traceback" not in said and ("llmctl: error[" in said) is (code != 141)


def test_lost_rank_behind_a_closed_connection_is_not_a_closed_pipe(monkeypatch):
    from llmctl import cli, pipeline
    from llmctl.core.errors import RankLost

    def fail(request):
        raise RankLost("rank 1 was lost") from BrokenPipeError()

    monkeypatch.setattr(pipeline, "execute", fail)
    monkeypatch.setattr(cli.signals, "install", lambda: None)
    assert cli.main(["synth", "-o", "x"]) == 79
