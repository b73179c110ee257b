"""`inspect --check`: does the artifact hold what its manifest says, and does it open elsewhere?"""

from __future__ import annotations

import importlib.util

from llmctl.artifacts.manifest import check_files
from llmctl.artifacts.store import Artifact
from llmctl.core.errors import Mismatch
from llmctl.core.files import read_json

TOLERANCE = 1e-4  # largest difference of fp32 logits that counts as equal


def check(artifact: Artifact) -> list[str]:
    """What was checked, one line each. Mismatch (78) at the first thing that does not hold."""
    lines = []
    if artifact.manifest:
        check_files(artifact.path, artifact.manifest, hashes=True)
        lines.append(f"{len(artifact.manifest['files'])} files: sizes and hashes as recorded")
    if artifact.kind == "tokens":
        from llmctl.data.bins import TokenBins

        for split in ("train", "val"):
            n = TokenBins.open(artifact.path, split).n_tokens
            lines.append(f"{split}: {n:,} tokens, headers and payload hashes agree")
    if (artifact.path / "config.json").is_file():
        lines.append(_against_transformers(artifact))
    return lines or ["nothing to check: a foreign file without a manifest"]


def _against_transformers(artifact: Artifact) -> str:
    """Compare our logits, or scores, with those of transformers on the same folder, in fp32."""
    if importlib.util.find_spec("transformers") is None:
        return "transformers is not installed: nothing compared with it"
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from llmctl.model.hf import gives_scores, load_model
    from llmctl.model.reward import load_reward_model

    config = read_json(artifact.path / "config.json")
    scores = isinstance(config, dict) and gives_scores(config)
    what = "scores" if scores else "logits"
    kind = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
    ours = (load_reward_model if scores else load_model)(artifact.path, torch.float32, "cpu")
    theirs = kind.from_pretrained(artifact.path, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, theirs.config.vocab_size, (2, 1, 32), generator=generator)
    if scores:  # theirs reads the last token that is no padding, so none may end a row
        rows[rows == theirs.config.pad_token_id] = int(theirs.config.pad_token_id == 0)
    with torch.no_grad():  # row by row: without a pad id, theirs refuses several
        difference = max(
            (ours(ids).flatten() - theirs(ids).logits.flatten()).abs().max().item() for ids in rows
        )
    if difference > TOLERANCE:
        raise Mismatch(
            f"{artifact.path}: {what} differ from transformers' by {difference:.2g}, more than "
            f"{TOLERANCE:g}; config.json and weights do not fit each other"
        )
    return f"opens in transformers with our {what} (largest difference {difference:.1e})"
