"""Starting N ranks of a stage with torchrun's own agent, and reading back how each one ended.

torchrun's command ends with 1 and a traceback whatever its ranks returned; its agent, called from
here, leaves the exit codes to us. Each rank writes its result or error beside the run's folder.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from llmctl.core.errors import ERRORS, Interrupted, LlmctlError, RankLost
from llmctl.core.files import read_json, write_json

TASK = "LLMCTL_TASK"  # environment variable: the task as JSON
_RESULTS = ".ranks"  # folder inside the draft, removed before it is committed


def start_ranks(nproc: int, task: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run `python -m llmctl` in nproc ranks on this machine; rank 0's stats come back.

    Raises the error of the rank that failed first, RankLost (79) when one died without a word.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    results = folder / _RESULTS
    _remove(results)
    results.mkdir()
    os.environ[TASK] = json.dumps({**task, "results": str(results)})
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // nproc)))
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=nproc,
        run_id=f"llmctl-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    failure: BaseException | None = None
    try:
        elastic_launch(config, sys.executable)("-m", "llmctl")
    except ChildFailedError as error:
        failure = error
    except BaseException as error:  # the agent's SignalException, Ctrl-C: ranks got it as well
        failure = error
    finally:
        del os.environ[TASK]
    if failure is not None:
        raise _cause(results, failure, nproc) from None
    stats = read_json(results / "rank-0.json")
    _remove(results)
    return stats["stats"]


def _cause(results: Path, failure: BaseException, nproc: int) -> LlmctlError:
    """The error to show: what a rank said of itself, else which rank was lost."""
    said = [read_json(p) for p in sorted(results.glob("rank-*.json"))]
    errors = sorted((s for s in said if "code" in s), key=lambda s: (s["code"] == 79, s["at"]))
    _remove(results)
    if errors:
        kinds = {e.code: e for e in ERRORS}
        return kinds.get(errors[0]["code"], LlmctlError)(errors[0]["message"])
    if "Signal" in type(failure).__name__ or isinstance(failure, KeyboardInterrupt | LlmctlError):
        return Interrupted("stopped by a signal; run the same command again to go on")
    lost = getattr(failure, "failures", None) or {}
    words = []
    for rank, record in sorted(lost.items()):
        code = getattr(record, "exitcode", 0)
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        words.append(f"rank {rank} of {nproc} ended by {name}")
    return RankLost(
        f"{'; '.join(words) or 'a rank was lost'}; the last checkpoint stands, run the same "
        "command again"
    )


def report_rank(task: dict[str, Any], value: dict[str, Any]) -> None:
    """Leave this rank's stats, or its error's code and message, for the starting process."""
    results = Path(task["results"])
    if results.is_dir():
        write_json(results / f"rank-{os.environ.get('RANK', '0')}.json", value)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
