"""Heads: from hidden states to a distribution over the vocabulary, and to the loss of targets under it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, log_softmax, pad

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
    """A distribution over `vocab_size` ids for each hidden state of `hidden_size` features."""

    def __init__(self, hidden_size: int, vocab_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.vocab_size = vocab_size

    @abstractmethod
    def loss(self, hidden: Tensor, targets: Tensor, weights: Tensor | None = None) -> HeadLoss:
        """The loss of targets `(...)` given hidden `(..., hidden_size)`.

        Weights `(...)` carry mask and normalisation, for a head may make its gradient before it returns; None stands for ones.
        """

    @abstractmethod
    def log_prob(self, hidden: Tensor) -> Tensor:
        """Normalised log-probabilities `(..., vocab_size)` given hidden `(..., hidden_size)`, in fp32 or fp64."""


class LinearHead(Head):
    """softmax(W h + b), or softmax(W P h + b), whose loss never holds more logits than a budget allows.

    The logits of 700 positions over 267,735 words take 715 MiB, and plain cross-entropy holds them more than twice. Here each
    chunk of positions adds its part of the gradient while its logits exist, so that one pass over the chunks is enough.

    Args:
        hidden_size: features of h.
        vocab_size: number of ids.
        bias: whether there is a b.
        projection_size: features of P h, for a W that is shared with an embedding of this width; None leaves P out.
        memory_budget_mib: MiB that the logits of one chunk may take; a chunk has at least one position.
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
        super().__init__(hidden_size, vocab_size)
        if memory_budget_mib <= 0:
            raise ValueError(f"LinearHead: {memory_budget_mib=} leaves no room for logits: give it a positive number, such as 64")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"LinearHead: {label_smoothing=} is the share of a target that is spread: from 0 to below 1")
        self.memory_budget_mib = memory_budget_mib
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
        check_shapes(hidden, targets, weights, self.hidden_size)
        check_ids(targets, self.vocab_size)
        dtype = product_dtype(self.weight)
        chunk_size = chunk_rows(targets.numel(), self.vocab_size, dtype, self.memory_budget_mib)
        operands = (self.projection(hidden.reshape(-1, self.hidden_size)), self.weight, self.bias)
        ids = targets.reshape(-1)
        row_weights = torch.ones_like(ids, dtype=wide(dtype)) if weights is None else weights.reshape(-1).to(wide(dtype))
        if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in operands):
            total, nll = LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
                *operands, ids, row_weights, dtype, chunk_size, self.label_smoothing
            )
            return HeadLoss(total, nll.view_as(targets), correct=None)
        nll, correct = evaluate(*operands, ids, dtype, chunk_size)
        return HeadLoss((row_weights * nll).sum(), nll.view_as(targets), correct.view_as(targets))

    def log_prob(self, hidden: Tensor) -> Tensor:
        """As in Head; all logits at once."""
        logits = linear(self.projection(hidden), self.weight, self.bias)
        return log_softmax(logits, dim=-1, dtype=wide(logits.dtype))


class LinearCrossEntropy(torch.autograd.Function):
    """Σ row_weights·loss, and nll; the forward makes the gradients, and the backward scales them.

    Shapes are those of `differentiate`. Casts are explicit, because autocast is on in a forward and off in its backward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        row_weights: Tensor,
        dtype: torch.dtype,
        chunk_size: int,
        smoothing: float,
    ) -> tuple[Tensor, Tensor]:
        """Make the loss and, of what needs one, the gradient."""
        # Weights such as 1/N would push a half-precision gradient below its smallest number: their common factor waits outside.
        # The padding keeps the factor positive for no weights and for zeros.
        ctx.factor = pad(row_weights.abs(), (0, 1), value=torch.finfo(row_weights.dtype).tiny).max()
        inputs = (features, weight, bias, targets, row_weights / ctx.factor)
        ctx.save_for_backward(*inputs)
        ctx.rest = (dtype, chunk_size, smoothing, ctx.needs_input_grad[:3])
        loss, nll, ctx.gradients = differentiate(*inputs, *ctx.rest)
        ctx.mark_non_differentiable(nll)
        return (row_weights * loss).sum(), nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, _grad_nll: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients in place: a second copy of the weight's would be the largest tensor here."""
        inputs = ctx.saved_tensors
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:  # scaled and given away by an earlier backward
            *_, gradients = differentiate(*inputs, *ctx.rest)
        scale = grad_total * ctx.factor
        scaled = (
            None if gradient is None else gradient.mul_(scale).to(tensor.dtype)
            for gradient, tensor in zip(gradients, inputs[:3], strict=True)
        )
        return *scaled, None, None, None, None, None


def differentiate(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    row_weights: Tensor,
    dtype: torch.dtype,
    chunk_size: int,
    smoothing: float,
    needs_gradient: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
    """The loss and the nll of each row, and the gradients of Σ row_weights·loss, all in wide types.

    With p the softmax of a row, ε the smoothing and V the size of the vocabulary, the loss is (1−ε)·nll − ε/V·Σ log p, and the
    logits of the row have the gradient row_weight·(p − (1−ε)·onehot(target) − ε/V). The row weight goes to the row of features
    and not to the row of p, which is as wide as the vocabulary.

    Args:
        features: `(rows, features)`.
        weight: `(vocab_size, features)`.
        bias: `(vocab_size,)` or None.
        targets: `(rows,)`.
        row_weights: `(rows,)`.
        dtype: what the matrix products compute in.
        chunk_size: rows whose logits exist at a time.
        smoothing: ε.
        needs_gradient: for features, weight and bias; a gradient that nobody needs is None.
    """
    nll, loss = torch.empty_like(row_weights), torch.empty_like(row_weights)
    features, weight, bias = features.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    gradients = tuple(
        torch.zeros_like(tensor, dtype=wide(dtype)) if tensor is not None and needed else None
        for tensor, needed in zip((features, weight, bias), needs_gradient, strict=True)
    )
    features_gradient, weight_gradient, bias_gradient = gradients
    for chunk, log_prob in log_prob_chunks(features, weight, bias, chunk_size):
        target, row_weight = targets[chunk, None], row_weights[chunk, None]
        target_log_prob = log_prob.gather(1, target)
        nll[chunk] = -target_log_prob[:, 0]
        loss[chunk] = nll[chunk]
        if smoothing:
            loss[chunk] += smoothing * (target_log_prob[:, 0] - log_prob.mean(dim=1))
        error = log_prob.exp_().scatter_(1, target, target_log_prob.expm1())
        if smoothing:
            error.sub_(smoothing / len(weight)).scatter_add_(1, target, torch.full_like(target_log_prob, smoothing))
        error = error.to(dtype)
        if features_gradient is not None:
            features_gradient[chunk] = (error @ weight) * row_weight
        if weight_gradient is not None:
            add_product(weight_gradient, error.T, (features[chunk] * row_weight).to(dtype))
        if bias_gradient is not None:
            bias_gradient += (error.T @ row_weight.to(dtype))[:, 0]
    return loss, nll, gradients


def evaluate(
    features: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, dtype: torch.dtype, chunk_size: int
) -> tuple[Tensor, Tensor]:
    """The nll of each row and whether its target is the most probable id; arguments as in `differentiate`."""
    nll, correct = torch.empty_like(targets, dtype=wide(dtype)), torch.empty_like(targets, dtype=torch.bool)
    operands = (features.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    for chunk, log_prob in log_prob_chunks(*operands, chunk_size):
        target = targets[chunk]
        nll[chunk] = -log_prob.gather(1, target[:, None])[:, 0]
        correct[chunk] = log_prob.argmax(1) == target
    return nll, correct


def log_prob_chunks(features: Tensor, weight: Tensor, bias: Tensor | None, chunk_size: int) -> Iterator[tuple[slice, Tensor]]:
    """Which rows, and their log-probabilities `(chunk_size or fewer, vocab_size)` in a buffer that the next chunk overwrites."""
    products = features.new_empty(min(chunk_size, len(features)), len(weight))
    exact = products.dtype == wide(products.dtype)
    log_probs = products if exact else torch.empty_like(products, dtype=wide(products.dtype))
    for start in range(0, len(features), chunk_size):
        chunk = slice(start, start + chunk_size)
        rows = features[chunk]
        logits = products[: len(rows)]
        if bias is None:
            torch.mm(rows, weight.T, out=logits)
        else:
            torch.addmm(bias, rows, weight.T, out=logits)
        log_prob = logits if exact else log_probs[: len(rows)].copy_(logits)
        yield chunk, torch.log_softmax(log_prob, 1, out=log_prob)  # a row is read to its end before it is written


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in place; a half-precision product is summed up in the wider type of the total."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def chunk_rows(rows: int, vocab_size: int, dtype: torch.dtype, memory_budget_mib: float) -> int:
    """Rows of a chunk, at least 1 and nearly the same for all chunks, whose logits stay within the budget.

    In half precision there are three of each logit: the product, its softmax in fp32, and the error that is multiplied again.
    """
    bytes_per_logit = wide(dtype).itemsize if dtype == wide(dtype) else wide(dtype).itemsize + 2 * dtype.itemsize
    most = max(1, int(memory_budget_mib * 2**20 / (vocab_size * bytes_per_logit)))
    return max(1, math.ceil(rows / max(1, math.ceil(rows / most))))


def check_shapes(hidden: Tensor, targets: Tensor, weights: Tensor | None, hidden_size: int) -> None:
    """Refuse shapes that a flattened computation would not notice."""
    if hidden.shape != (*targets.shape, hidden_size):
        shapes = f"hidden {tuple(hidden.shape)} and targets {tuple(targets.shape)}"
        raise ValueError(f"LinearHead: {shapes} do not fit: give each target one hidden state of {hidden_size} features")
    if weights is not None and weights.shape != targets.shape:
        shapes = f"weights {tuple(weights.shape)} and targets {tuple(targets.shape)}"
        raise ValueError(f"LinearHead: {shapes} do not fit: give each target one weight")


def check_ids(targets: Tensor, vocab_size: int) -> None:
    """Refuse ids outside the vocabulary, where looking at them makes no device wait."""
    if targets.device.type == "cpu" and targets.numel():
        low, high = (int(bound) for bound in targets.aminmax())
        if low < 0 or high >= vocab_size:
            raise IndexError(
                f"LinearHead: the target {low if low < 0 else high} is none of the {vocab_size} ids of the vocabulary: "
                "encode with the tokenizer that sized the head, and mask with weights of 0"
            )
