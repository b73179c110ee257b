"""Answers that share a prompt attend as if each had its own copy."""

import pytest
import torch

from llmctl.model import group_attention
from llmctl.model.attention import merge_heads
from llmctl.model.group_attention import attention_over

LAYOUTS = (
    [(5, [3, 3, 3])],
    [(4, [2, 6, 1]), (7, [5])],
    [(3, [])],
    [(1, [1, 4]), (6, []), (2, [3])],
)


def slowly(q, k, v, layout):
    """Each continuation behind its own copy of the prompt, one softmax a token."""
    share = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(share, 1) for x in (k, v))
    out, at = torch.empty_like(q), 0
    for prompt, lengths in layout:
        spans = [(at, at + prompt, list(range(at, at + prompt)))]
        behind = at + prompt
        for length in lengths:
            seen = [*range(at, at + prompt), *range(behind, behind + length)]
            spans.append((behind, behind + length, seen))
            behind += length
        for start, stop, seen in spans:
            for i in range(start, stop):
                mine = [j for j in seen if j <= i]
                scores = torch.einsum("hk,hjk->hj", q[0, :, i], k[0, :, mine]) * q.shape[-1] ** -0.5
                out[0, :, i] = torch.einsum("hj,hjk->hk", scores.softmax(-1), v[0, :, mine])
        at = behind
    return merge_heads(out)


@pytest.mark.parametrize("many_scores", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_one_copy_of_the_prompt_for_each(layout, many_scores, monkeypatch):
    if many_scores:
        monkeypatch.setattr(group_attention, "MOST_SCORES", 0)
    torch.manual_seed(1)
    n = sum(p + sum(r) for p, r in layout)
    q = torch.randn(1, 4, n, 8, requires_grad=True)
    k, v = (torch.randn(1, 2, n, 8, requires_grad=True) for _ in range(2))
    probe = torch.randn(1, n, 32)
    wanted = slowly(q, k, v, layout)
    grads = torch.autograd.grad((wanted * probe).sum(), (q, k, v))
    found = attention_over(layout, 4)(0, q, k, v)
    assert torch.allclose(found, wanted, atol=1e-5)
    for mine, theirs in zip(torch.autograd.grad((found * probe).sum(), (q, k, v)), grads):
        assert torch.allclose(mine, theirs, atol=1e-5)
