"""`inspect --check`: does the artifact hold what its manifest says, and does it open elsewhere?"""

from __future__ import annotations

import importlib.util

from llmctl.artifacts.manifest import check_files
from llmctl.artifacts.store import Artifact
from llmctl.core.errors import Mismatch

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
    """Compare our logits with those of transformers on the same folder, in fp32."""
    if importlib.util.find_spec("transformers") is None:
        return "transformers is not installed: logits not compared"
    import torch
    from transformers import AutoModelForCausalLM

    from llmctl.model.hf import load_model

    ours = load_model(artifact.path, dtype=torch.float32, device="cpu")
    theirs = AutoModelForCausalLM.from_pretrained(artifact.path, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    vocab = theirs.config.vocab_size
    ids = torch.randint(0, vocab, (2, 32), generator=generator)
    with torch.no_grad():
        difference = (ours(ids) - theirs(ids).logits).abs().max().item()
    if difference > TOLERANCE:
        raise Mismatch(
            f"{artifact.path}: logits differ from transformers' by {difference:.2g}, more than "
            f"{TOLERANCE:g}; config.json and weights do not fit each other"
        )
    return f"opens in transformers with our logits (largest difference {difference:.1e})"
