"""Attention by blocks equals attention with a mask, gradients too, whatever the documents."""

import pytest
import torch

from llmctl.model import attention
from llmctl.model.block_attention import LONGEST, TOGETHER, blocks_of, within


def rows(*lengths, size):
    """segments (B, size) of rows with documents of these lengths; the rest is padding."""
    made = torch.full((len(lengths), size), -1, dtype=torch.int32)
    for row, parts in enumerate(lengths):
        at = 0
        for number, n in enumerate(parts):
            made[row, at : at + n] = number
            at += n
    return made


CASES = {
    "one document a row": rows([8], [8], size=8),
    "padding": rows([3, 2], [1], size=8),
    "single tokens": rows([1] * 8, [1, 7], size=8),
    "blocks of many, of one, and too long": rows(
        [20, 90, 30, 150, 5], [LONGEST + 1], [TOGETHER, 1, TOGETHER + 1], size=LONGEST + 5
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_it_equals_the_mask(case, dtype, close):
    segments = CASES[case]
    torch.manual_seed(0)
    shape = (*segments.shape, 4, 16)
    q, k, v = (torch.randn(shape)[:, :, :h].transpose(1, 2).to(dtype) for h in (4, 2, 2))
    grad = torch.randn(*segments.shape, 64).to(dtype) * (segments >= 0)[..., None]
    found = []
    for attend in (attention.masked(attention.segment_mask(segments)), within(segments)):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        out = attend(0, *leaves)
        out.backward(grad)
        found.append([out.detach() * (segments >= 0)[..., None], *(x.grad for x in leaves)])
    for theirs, mine in zip(*found):
        assert (theirs.float() - mine.float()).abs().max() < close * theirs.float().abs().max()


def test_blocks_hold_every_token_once_and_no_padding():
    for segments in CASES.values():
        seen = torch.zeros(segments.numel(), dtype=torch.int64)
        for block in blocks_of(segments):
            seen[block.start : block.stop] += 1
            assert (block.hidden is None) == (block.stop - block.start > LONGEST)
        assert torch.equal(seen, (segments.flatten() >= 0).long())


def test_short_neighbours_share_a_block():
    [block] = blocks_of(rows([20, 30], size=60))
    assert (block.start, block.stop) == (0, 50)
    assert (
        block.hidden is not None
        and block.hidden[20:, :20].all()
        and not block.hidden[49, 20:].any()
    )
