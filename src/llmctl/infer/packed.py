"""Matrix products with weights laid out for the CPU.

A decode step reads every weight once, so memory bandwidth bounds it, and torch's own product of a
few rows with a matrix leaves half of it unused. oneDNN's blocked layout, made once at load, does
not. Measured on one Zen 4 thread, the products of one token of a 135M-parameter Llama, ms:

    rows           1     4    16   512
    bf16 F.linear 36    44    56   724
    bf16 blocked  22    20    34   692
    fp32 F.linear 49    69   120  1541
    fp32 blocked  41    33    55  1321

In fp32 fewer than four rows had better be padded to four (`fewest_rows`): 33 ms instead of 41.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCKED_FOR = 16  # rows the layout is made for; it serves all other numbers as well
FEWEST_FP32 = 4


def can_block(weight: Tensor) -> bool:
    """Whether this machine and torch have the blocked product for such a weight."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    ops = torch.ops.mkldnn
    if not hasattr(ops, "_reorder_linear_weight") or not hasattr(ops, "_linear_pointwise"):
        return False
    if weight.dtype == torch.bfloat16:
        return bool(ops._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


def fewest_rows(linear: Linear, dtype: torch.dtype) -> int:
    """Rows below which a product costs more than with repeated ones added."""
    return FEWEST_FP32 if linear.blocked and dtype == torch.float32 else 1


class Linear:
    """y = act(x W^T + b) (+ or * another tensor); x (N, in), W (out, in). Immutable.

    Several weights are stacked into one product. With `block`, they are copied into oneDNN's
    layout; else a single weight is used as it lies, and several are copied side by side.
    """

    def __init__(
        self, weights: Sequence[Tensor], biases: Sequence[Tensor | None], *, block: bool
    ) -> None:
        joined = weights[0] if len(weights) == 1 else torch.cat(list(weights))
        self.n_out = joined.shape[0]
        self.bias = None
        if any(bias is not None for bias in biases):
            parts = [w.new_zeros(len(w)) if b is None else b for w, b in zip(weights, biases)]
            self.bias = parts[0] if len(parts) == 1 else torch.cat(parts)
        self.blocked = block and can_block(joined)
        if self.blocked:
            reorder = torch.ops.mkldnn._reorder_linear_weight
            self.weight = reorder(joined.contiguous(), BLOCKED_FOR)
            self.product = torch.ops.mkldnn._linear_pointwise.default
            self.binary = torch.ops.mkldnn._linear_pointwise.binary
        else:
            self.weight = joined

    def __call__(self, x: Tensor) -> Tensor:
        return self._run(x, "none", "")

    def silu(self, x: Tensor) -> Tensor:
        """silu(x W^T + b)."""
        return self._run(x, "swish", "")

    def gelu_tanh(self, x: Tensor) -> Tensor:
        """gelu(x W^T + b), the tanh form."""
        return self._run(x, "gelu", "tanh")

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """x W^T + b + other (N, out)."""
        return self._with(x, other, "add")

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """(x W^T + b) * other (N, out)."""
        return self._with(x, other, "mul")

    def _run(self, x: Tensor, act: str, form: str) -> Tensor:
        if self.blocked:
            return self.product(x, self.weight, self.bias, act, [], form)
        return _ACTIVATIONS[act](F.linear(x, self.weight, self.bias))

    def _with(self, x: Tensor, other: Tensor, operation: str) -> Tensor:
        if self.blocked:
            return self.binary(x, other, self.weight, self.bias, operation)
        y = F.linear(x, self.weight, self.bias)
        return y.add_(other) if operation == "add" else y.mul_(other)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "swish": lambda x: F.silu(x, inplace=True),
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
}
