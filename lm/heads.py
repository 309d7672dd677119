"""Heads: from hidden states to a distribution over the vocabulary, and to the loss of targets under it."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, log_softmax

from lm.linear_cross_entropy import LinearCrossEntropy, chunk_rows, evaluate, log_prob_chunks, log_softmax_in_place
from lm.precision import product_dtype, wide


class HeadLoss(NamedTuple):
    """The loss of some targets, in fp32, or in fp64 where the head is.

    Attributes:
        total: Σ weights·loss, a differentiable scalar; the loss is nll, smoothed in training where the head is told to.
        nll: −log p of each target in nats, detached, in the shape of the targets.
        correct: whether each target is the most probable id, in the shape of the targets; None while a gradient is recorded,
            when it would cost one more look at every logit.
    """

    total: Tensor
    nll: Tensor
    correct: Tensor | None


class Head(nn.Module, ABC):
    """A distribution over `vocab_size` ids for each hidden state of `hidden_size` features.

    Args:
        hidden_size: features of h.
        vocab_size: number of ids.
        memory_budget_mib: MiB that the logits of one chunk may take; a chunk has at least one position.

    Raises:
        ValueError: if the budget has no room for anything.
    """

    def __init__(self, hidden_size: int, vocab_size: int, memory_budget_mib: float = 64) -> None:
        super().__init__()
        if memory_budget_mib <= 0:
            name = type(self).__name__
            raise ValueError(f"{name}: {memory_budget_mib=} leaves no room for logits: give it a positive number, such as 64")
        self.hidden_size = hidden_size
        self.vocab_size = vocab_size
        self.memory_budget_mib = memory_budget_mib

    @abstractmethod
    def loss(self, hidden: Tensor, targets: Tensor, weights: Tensor | None = None) -> HeadLoss:
        """The loss of targets `(...)` given hidden `(..., hidden_size)`.

        Weights `(...)` carry mask and normalisation, for a head may make its gradient before it returns; None stands for ones.
        """

    @abstractmethod
    def log_prob(self, hidden: Tensor) -> Tensor:
        """Normalised log-probabilities `(..., vocab_size)` given hidden `(..., hidden_size)`, in fp32 or fp64."""

    def check(self, hidden: Tensor, targets: Tensor, weights: Tensor | None) -> None:
        """Refuse shapes that a flattened computation would not notice, and ids where looking at them makes no device wait.

        Raises:
            ValueError: for shapes that do not fit each other.
            IndexError: for a target outside the vocabulary; on CUDA an assertion of its own fails instead.
        """
        name = type(self).__name__
        if hidden.shape != (*targets.shape, self.hidden_size):
            shapes = f"hidden {tuple(hidden.shape)} and targets {tuple(targets.shape)}"
            raise ValueError(f"{name}: {shapes} do not fit: give each target one hidden state of {self.hidden_size} features")
        if weights is not None and weights.shape != targets.shape:
            shapes = f"weights {tuple(weights.shape)} and targets {tuple(targets.shape)}"
            raise ValueError(f"{name}: {shapes} do not fit: give each target one weight")
        if targets.device.type == "cpu" and targets.numel():
            low, high = (int(bound) for bound in targets.aminmax())
            if low < 0 or high >= self.vocab_size:
                raise IndexError(
                    f"{name}: the target {low if low < 0 else high} is none of the {self.vocab_size} ids of the vocabulary: "
                    "encode with the tokenizer that sized the head, and mask with weights of 0"
                )


class LinearHead(Head):
    """softmax(W h + b), or softmax(W P h + b), whose loss never holds more logits than a budget allows.

    The logits of 700 positions over 267,735 words take 715 MiB, and plain cross-entropy holds them more than twice. Here each
    chunk of positions adds its part of the gradient while its logits exist, so that one pass over the chunks is enough.

    Args:
        hidden_size: features of h.
        vocab_size: number of ids.
        bias: whether there is a b.
        projection_size: features of P h, for a W that is shared with an embedding of this width; None leaves P out.
        memory_budget_mib: as in Head.
        label_smoothing: share ε of the target that is spread evenly over the vocabulary in training (Szegedy et al. 2016, §7).
    """

    def __init__(
        self,
        hidden_size: int,
        vocab_size: int,
        bias: bool = True,
        projection_size: int | None = None,
        memory_budget_mib: float = 64,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(hidden_size, vocab_size, memory_budget_mib)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"LinearHead: {label_smoothing=} is the share of a target that is spread: from 0 to below 1")
        self.label_smoothing = label_smoothing
        self.projection = nn.Identity() if projection_size is None else nn.Linear(hidden_size, projection_size, bias=False)
        self.weight = nn.Parameter(torch.empty(vocab_size, projection_size or hidden_size))
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if bias else None
        bound = self.weight.shape[1] ** -0.5  # that of nn.Linear
        nn.init.uniform_(self.weight, -bound, bound)

    def loss(self, hidden: Tensor, targets: Tensor, weights: Tensor | None = None) -> HeadLoss:
        """As in Head; a second backward of one loss (`retain_graph`) goes over the chunks again, a double backward is refused.

        Raises:
            ValueError: for shapes that do not fit each other.
            IndexError: for a target outside the vocabulary; on CUDA an assertion of its own fails instead.
        """
        self.check(hidden, targets, weights)
        dtype = product_dtype(self.weight)
        chunk_size = chunk_rows(targets.numel(), self.vocab_size, dtype, self.memory_budget_mib)
        operands = (self.projection(hidden.reshape(-1, self.hidden_size)), self.weight, self.bias)
        ids, row_weights = flattened(targets, weights, dtype)
        if records_gradient(*operands):
            total, nll = LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
                *operands, ids, row_weights, None, dtype, chunk_size, self.label_smoothing
            )
            return HeadLoss(total, nll.view_as(targets), correct=None)
        nll, correct = evaluate(*operands, ids, dtype, chunk_size)
        return HeadLoss((row_weights * nll).sum(), nll.view_as(targets), correct.view_as(targets))

    def log_prob(self, hidden: Tensor) -> Tensor:
        """As in Head; all logits at once."""
        features = self.projection(hidden)
        if records_gradient(features, self.weight, self.bias) or not features.numel():
            logits = linear(features, self.weight, self.bias)
            return log_softmax(logits, dim=-1, dtype=wide(logits.dtype))
        dtype = product_dtype(self.weight)
        features = features.to(dtype)
        if dtype != wide(dtype):  # autocast keeps the weights that it casts, so that a search casts them once
            logits = linear(features, self.weight, self.bias)
            return log_softmax_in_place(logits.to(wide(dtype)))
        rows = features.reshape(-1, features.shape[-1])
        _, log_prob = next(log_prob_chunks(rows, self.weight, self.bias, len(rows)))
        return log_prob.view(*hidden.shape[:-1], self.vocab_size)


def flattened(targets: Tensor, weights: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Targets and their weights as rows, `(positions,)` each; the weights in the wide type of `dtype`."""
    ids = targets.reshape(-1)
    return ids, torch.ones_like(ids, dtype=wide(dtype)) if weights is None else weights.reshape(-1).to(wide(dtype))


def records_gradient(*operands: Tensor | None) -> bool:
    """Whether autograd would record what is computed from these."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in operands)
