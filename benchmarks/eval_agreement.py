"""Log-likelihoods of llmctl eval against lm-evaluation-harness's, on the same items.

    pip install lm_eval accelerate
    python benchmarks/eval_agreement.py MODEL TASKS... [--limit 100]

MODEL: a Hugging Face folder. Every (context, continuation) that `llmctl eval` scores is given to
the harness's HFLM (fp32, CPU) as a loglikelihood request. Prints, for each task file, the items,
the largest and mean difference in nats, greedy flags that differ, and the accuracies of both.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from llmctl.evals.tasks.ask import Asking, Subject, ask
from llmctl.evals.tasks.read import find_files, read_tasks
from llmctl.evals.tasks.requests import start_of
from llmctl.infer.opening import open_engine


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("model")
    arguments.add_argument("tasks", nargs="+")
    arguments.add_argument("--limit", type=int, default=100)
    arguments.add_argument("--shots", type=int, default=0)
    arguments.add_argument("--threads", type=int, default=1)
    given = arguments.parse_args()
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    engine = open_engine(Path(given.model), dtype="fp32", device="cpu", workers=given.threads)
    start = start_of(Path(given.model), engine.tokenizer, own=False)
    subject = Subject("model", engine, start)
    torch.set_num_threads(given.threads)
    peer = HFLM(pretrained=given.model, dtype="float32", device="cpu", batch_size=1)
    header = ("task", "items", "pairs", "max |d|", "mean |d|", "greedy differs")
    print("  ".join((*header, "acc", "theirs", "norm", "theirs", "seconds", "theirs")))
    asking = Asking(limit=given.limit, shots=given.shots)
    worst, n_items = 0.0, 0
    for path in find_files(tuple(given.tasks)):
        for task in read_tasks(path):
            if task.kind == "open":
                continue
            began = time.perf_counter()
            result = ask(subject, task, asking)
            middle = time.perf_counter()
            rows = [row for row in result.rows if "pairs" in row]
            requests = [
                Instance("loglikelihood", {}, tuple(pair), 0)
                for row in rows
                for pair in row["pairs"]
            ]
            theirs = iter(peer.loglikelihood(requests, disable_tqdm=True))
            end = time.perf_counter()
            gaps, greedy, right, norm = [], 0, 0, 0
            for row in rows:
                answers = [next(theirs) for _ in row["pairs"]]
                gaps += [abs(a - b) for a, (b, _) in zip(row["logprobs"], answers)]
                greedy += sum(a != b for a, (_, b) in zip(row["greedy"], answers))
                sums = [logprob for logprob, _ in answers]
                options = [k.strip() for _, k in row["pairs"]]
                if len(sums) == 1:
                    right += answers[0][1]
                else:
                    right += sums.index(max(sums)) == row["gold"]
                means = [s / len(o) for s, o in zip(sums, options)]
                norm += means.index(max(means)) == row["gold"]
            n = max(1, len(rows))
            worst, n_items = max(worst, *gaps), n_items + len(rows)
            ours = [result.metrics["acc"][0], right / n]
            if task.kind == "choice":
                ours += [result.metrics["acc_norm"][0], norm / n]
            print(
                f"{task.name}  {len(rows)}  {len(gaps)}  {max(gaps):.2e}  "
                f"{sum(gaps) / len(gaps):.2e}  {greedy}  "
                + "  ".join(f"{x:.4f}" for x in ours)
                + f"  {middle - began:.1f}  {end - middle:.1f}",
                flush=True,
            )
    print(f"{n_items} items; largest difference {worst:.2e} nats")


if __name__ == "__main__":
    main()
