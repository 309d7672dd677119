"""Attention: where in the source a decoder looks, by four scores."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable

from lm.precision import wide
from lm.step_linear import Gathering, StepLinear


class Attended(NamedTuple):
    """The result of looking.

    Attributes:
        context: Σ_s a_ts·v_s, `(batch, time, value_size)`.
        weights: a, `(batch, time, source_time)`, in fp32 at least; rows sum to one over tokens, and are zero where there is none.
    """

    context: Tensor
    weights: Tensor


class Attention(Gathering, nn.Module, ABC):
    """a_t = softmax_s(score(q_t, k_s)), context_t = Σ_s a_ts·v_s, over what is no padding.

    Keys come from `keys`, once a sentence; time may hold the steps of one hypothesis or one step of several.

    Args:
        query_size: features of a query, a decoder state.
        value_size: features of a value, an encoder state.
    """

    reads_coverage = False
    """Whether the score depends on where was looked before, so that steps have to follow each other."""

    def __init__(self, query_size: int, value_size: int) -> None:
        super().__init__()
        self.query_size = query_size
        self.value_size = value_size

    def keys(self, values: Tensor) -> Tensor:
        """What scores need of values `(batch, source_time, value_size)`, computed once for all queries."""
        return values

    @abstractmethod
    def score(self, queries: Tensor, keys: Tensor, coverage: Tensor | None) -> Tensor:
        """Queries `(batch, time, query_size)` and what `keys` made -> `(batch, time, source_time)`."""

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, coverage: Tensor | None = None) -> Attended:
        """Look from each query `(batch, time, query_size)` at the values.

        Args:
            queries: `(batch, time, query_size)`.
            keys: what `keys` made of the values.
            values: `(batch, source_time, value_size)`.
            mask: `(batch, source_time)`, true for what may be looked at.
            coverage: Σ of the weights of all steps before, `(batch, time, source_time)`, for a score that reads it.
        """
        scores = self.score(queries, keys, coverage)
        scores = scores.to(wide(scores.dtype))
        # The smallest number and not −inf: a row without any token becomes uniform, then zero, and never nan.
        hidden = ~mask[:, None]
        weights = scores.masked_fill(hidden, torch.finfo(scores.dtype).min).softmax(dim=-1).masked_fill(hidden, 0.0)
        return Attended(self.product(weights, values.mT, None).to(values.dtype), weights)


class AdditiveAttention(Attention):
    """score = vᵀ tanh(W q + U k) (Bahdanau et al. 2015, appendix A.1.2); written vᵀ tanh(W [q; k]) it is Luong's concat.

    With coverage the score reads how much a place was looked at before: vᵀ tanh(W q + U k + w·c + b) (See et al. 2017, eq. 11).

    Args:
        query_size: features of a query.
        value_size: features of a value.
        hidden_size: features of the sum; None for those of a query.
        coverage: add the term of the coverage.
    """

    def __init__(self, query_size: int, value_size: int, hidden_size: int | None = None, coverage: bool = False) -> None:
        super().__init__(query_size, value_size)
        hidden_size = hidden_size or query_size
        self.from_query = StepLinear(query_size, hidden_size, bias=False)
        self.from_key = nn.Linear(value_size, hidden_size, bias=coverage)
        self.reads_coverage = coverage
        self.from_coverage = nn.Parameter(torch.zeros(hidden_size)) if coverage else None
        self.energy = nn.Linear(hidden_size, 1, bias=False)

    def keys(self, values: Tensor) -> Tensor:
        """U k, and b."""
        return self.summand(self.from_key(values))

    def score(self, queries: Tensor, keys: Tensor, coverage: Tensor | None) -> Tensor:
        """See Attention."""
        total = self.summand(self.from_query(queries))[:, :, None] + keys[:, None]
        if self.from_coverage is not None and coverage is not None:
            total = total + coverage[..., None].to(total.dtype) * self.from_coverage.to(total.dtype)
        energy: Tensor = Energy.apply(total, self.energy.weight[0])  # type: ignore[no-untyped-call]
        return energy

    @staticmethod
    def summand(x: Tensor) -> Tensor:
        """What is added up is in fp32 at least on a CPU, where tanh of half precision is two to three times slower."""
        return x.to(wide(x.dtype)) if x.device.type == "cpu" else x


class Energy(Function):
    """vᵀ tanh(x), which overwrites x: of the largest tensor of a step only tanh is kept for the gradient.

    With e = ∂L/∂(vᵀ tanh(x)), ∂L/∂x = e ⊙ (1 − tanh²(x)) ⊙ v and ∂L/∂v = Σ e ⊙ tanh(x).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor) -> Tensor:
        """x `(..., features)` and v `(features,)` -> `(...)`, in the type of x."""
        v = v.to(x.dtype)
        result = x.tanh_()
        ctx.save_for_backward(result, v)
        energy = result.new_empty(result.shape[:-1])
        torch.mv(result.view(-1, len(v)), v, out=energy.view(-1))  # whose type autocast leaves alone
        return energy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of both."""
        result, v = ctx.saved_tensors
        of_x = error[..., None] * v
        torch.ops.aten.tanh_backward.grad_input(of_x, result, grad_input=of_x)  # which overwrites it
        return of_x, (error.reshape(1, -1) @ result.view(-1, len(v)))[0]


class DotAttention(Attention):
    """score = q·k (Luong et al. 2015, eq. 8), or q·k/√size (Vaswani et al. 2017, eq. 1).

    Args:
        query_size: features of a query.
        value_size: features of a value; the same.
        scaled: divide by the root of the size.

    Raises:
        ValueError: if the sizes differ.
    """

    def __init__(self, query_size: int, value_size: int, scaled: bool = False) -> None:
        super().__init__(query_size, value_size)
        if query_size != value_size:
            raise ValueError(
                f"DotAttention multiplies states of {query_size} and {value_size} features: make the decoder as wide as both"
                " directions of the encoder, or use GeneralAttention"
            )
        self.scale = query_size**-0.5 if scaled else 1.0

    def score(self, queries: Tensor, keys: Tensor, coverage: Tensor | None) -> Tensor:
        """See Attention."""
        return (queries * self.scale) @ keys.transpose(1, 2)


class GeneralAttention(Attention):
    """score = qᵀ W k (Luong et al. 2015, eq. 8)."""

    def __init__(self, query_size: int, value_size: int) -> None:
        super().__init__(query_size, value_size)
        self.weight = nn.Linear(value_size, query_size, bias=False)

    def keys(self, values: Tensor) -> Tensor:
        """W k."""
        projected: Tensor = self.weight(values)
        return projected

    def score(self, queries: Tensor, keys: Tensor, coverage: Tensor | None) -> Tensor:
        """See Attention."""
        return queries @ keys.transpose(1, 2)


AttentionFactory = Callable[[int, int], Attention]
"""Makes an attention from the sizes of queries and values: a class, or a partial of one with its other arguments."""
