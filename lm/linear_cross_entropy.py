"""Cross-entropy of a linear layer in chunks: each adds its part of the gradient while its logits exist."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from lm.precision import wide

ROW_MULTIPLE = 32
"""Rows of half precision are filled up to a multiple on a CPU, where a product is compiled for each number of them (1 ms)."""

ALIGNMENT = 16
"""Numbers in fp32 that fill 64 bytes."""

IN_CACHE = 2**19
"""Numbers in fp32 that fill the level-2 caches of two cores."""


class LinearCrossEntropy(torch.autograd.Function):
    """Σ row_weights·loss, and nll; the forward makes the gradients, and the backward scales them.

    With a `log_prior`, rows are the experts of a mixture and the weight of each is multiplied by its responsibility, a constant.

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
        log_prior: Tensor | None,
        dtype: torch.dtype,
        chunk_size: int,
        smoothing: float,
    ) -> tuple[Tensor, Tensor]:
        """Make the loss and, of what needs one, the gradient."""
        ctx.factor = common_factor(row_weights) if dtype == torch.float16 else row_weights.new_ones(())
        inputs = (features, weight, bias, targets, row_weights / ctx.factor, log_prior)
        ctx.save_for_backward(*inputs)
        ctx.rest = (dtype, chunk_size, smoothing, ctx.needs_input_grad[:3])
        loss, nll, ctx.gradients = differentiate(*inputs, *ctx.rest)
        ctx.mark_non_differentiable(nll)
        if log_prior is not None:
            row_weights = row_weights * responsibilities(log_prior, nll)
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
        scaled = gradients
        if scale.device.type != "cpu" or scale != 1:  # to look at it would have a GPU wait
            scaled = tuple(None if gradient is None else gradient.mul_(scale) for gradient in gradients)
        typed = (None if part is None else part.to(tensor.dtype) for part, tensor in zip(scaled, inputs[:3], strict=True))
        return *typed, None, None, None, None, None, None


def common_factor(row_weights: Tensor) -> Tensor:
    """The largest weight; in fp16 weights such as 1/N would push a gradient below its smallest number, and it waits outside.

    The padding keeps the factor positive for no weights and for zeros.
    """
    return pad(row_weights.abs(), (0, 1), value=torch.finfo(row_weights.dtype).tiny).max()


def differentiate(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    row_weights: Tensor,
    log_prior: Tensor | None,
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
        log_prior: log π `(positions, experts)` of a mixture whose experts are the rows of a position; None where a row is alone.
        dtype: what the matrix products compute in.
        chunk_size: rows whose logits exist at a time, those of whole positions.
        smoothing: ε.
        needs_gradient: for features, weight and bias; a gradient that nobody needs is None.
    """
    rows = len(features)
    if features.device.type == "cpu" and dtype != wide(dtype) and chunk_size % ROW_MULTIPLE == 0 and log_prior is None:
        extra = -rows % ROW_MULTIPLE
        features, targets, row_weights = pad(features, (0, 0, 0, extra)), pad(targets, (0, extra)), pad(row_weights, (0, extra))
    nll, loss = torch.empty_like(row_weights), torch.empty_like(row_weights)
    features, weight, bias = features.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    empty = torch.empty_like if rows else torch.zeros_like  # the first chunk writes, the others add
    gradients = tuple(
        empty(tensor, dtype=wide(dtype)) if tensor is not None and needed else None
        for tensor, needed in zip((features, weight, bias), needs_gradient, strict=True)
    )
    features_gradient, weight_gradient, bias_gradient = gradients
    for chunk, logits in logit_chunks(features, weight, bias, chunk_size):
        nll[chunk], loss[chunk] = to_errors(logits, targets[chunk, None], len(weight), smoothing)
        error, row_weight = logits[:, : len(weight)], row_weights[chunk, None]
        if log_prior is not None:
            positions = slice(chunk.start // log_prior.shape[1], chunk.stop // log_prior.shape[1])
            row_weight = row_weight * responsibilities(log_prior[positions], nll[chunk])[:, None]
        if features_gradient is not None:
            features_gradient[chunk] = (error @ weight) * row_weight
        if weight_gradient is not None:
            add_product(weight_gradient, error.T, (features[chunk] * row_weight).to(dtype), first=chunk.start == 0)
        if bias_gradient is not None:
            add_product(bias_gradient[:, None], error.T, row_weight.to(dtype), first=chunk.start == 0)
    of_features = None if features_gradient is None else features_gradient[:rows]
    return loss[:rows], nll[:rows], (of_features, weight_gradient, bias_gradient)


def to_errors(logits: Tensor, target: Tensor, vocab_size: int, smoothing: float) -> tuple[Tensor, Tensor]:
    """The nll and the loss of each row; the logits become the loss's gradient with respect to them, in place.

    On a CPU a few rows at a time, so that they are still in its cache when they are read again; and in half precision, only
    these few are in a wide type.

    Args:
        logits: `(rows, vocab_size or more)`, −inf behind the vocabulary.
        target: `(rows, 1)`.
        vocab_size: V.
        smoothing: ε.
    """
    nll, loss = logits.new_empty(2, len(logits), dtype=wide(logits.dtype))
    rows = len(logits) if logits.device.type != "cpu" else max(1, IN_CACHE // logits.shape[1])
    for start in range(0, len(logits), rows):
        here = slice(start, start + rows)
        values = logits[here].to(nll.dtype)
        of_target, largest = values.gather(1, target[here]), values.amax(dim=1, keepdim=True)
        mean = values[:, :vocab_size].mean(dim=1, keepdim=True) if smoothing else of_target
        probability = torch.softmax(values, 1, out=values)
        # The largest probability is no rounded zero, so that its logarithm gives that of the sum: one exponential, not two.
        log_sum = largest - probability.amax(dim=1, keepdim=True).log()
        nll[here] = (log_sum - of_target)[:, 0]
        loss[here] = (log_sum - of_target.lerp(mean, smoothing))[:, 0]
        error = probability[:, :vocab_size].scatter_(1, target[here], (of_target - log_sum).expm1())
        if smoothing:
            error.sub_(smoothing / vocab_size).scatter_add_(1, target[here], torch.full_like(of_target, smoothing))
        if error.dtype != logits.dtype:
            logits[here, :vocab_size].copy_(error)
    return nll, loss


def responsibilities(log_prior: Tensor, nll: Tensor) -> Tensor:
    """π_k p_k / Σ_j π_j p_j of each expert at its position's target: log π `(positions, experts)`, nll `(rows,)` -> `(rows,)`."""
    return (log_prior - nll.view_as(log_prior)).softmax(dim=1).flatten()


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


def logit_chunks(features: Tensor, weight: Tensor, bias: Tensor | None, chunk_size: int) -> Iterator[tuple[slice, Tensor]]:
    """Which rows, and their logits `(chunk_size or fewer, vocab_size or more)` in a buffer that the next chunk overwrites.

    A product in full precision takes up to 1.7 times as long on a CPU where the rows it writes do not begin at multiples of 64
    bytes. So rows are that long: what is behind the vocabulary has the probability 0.
    """
    vocab_size, exact = len(weight), features.dtype == wide(features.dtype)
    width = math.ceil(vocab_size / ALIGNMENT) * ALIGNMENT if exact else vocab_size
    products = features.new_empty(min(chunk_size, len(features)), width)
    for start in range(0, len(features), chunk_size):
        chunk = slice(start, start + chunk_size)
        rows = features[chunk]
        logits = products[: len(rows)]
        logits[:, vocab_size:] = -torch.inf
        if bias is None:
            torch.mm(rows, weight.T, out=logits[:, :vocab_size])
        else:
            torch.addmm(bias, rows, weight.T, out=logits[:, :vocab_size])
        yield chunk, logits


def log_prob_chunks(features: Tensor, weight: Tensor, bias: Tensor | None, chunk_size: int) -> Iterator[tuple[slice, Tensor]]:
    """Which rows, and their log-probabilities `(chunk_size or fewer, vocab_size)`, which may be changed until the next chunk."""
    dtype, rows = wide(features.dtype), min(chunk_size, len(features))
    widened = None if features.dtype == dtype else features.new_empty(rows, len(weight), dtype=dtype)
    for chunk, logits in logit_chunks(features, weight, bias, chunk_size):
        log_prob = logits if widened is None else widened[: len(logits)].copy_(logits)
        yield chunk, log_softmax_in_place(log_prob)[:, : len(weight)]


def log_softmax_in_place(logits: Tensor) -> Tensor:
    """The log-probabilities of rows, where their logits were: a row is read to its end before it is written."""
    return torch.log_softmax(logits, -1, out=logits)


def add_product(total: Tensor, left: Tensor, right: Tensor, first: bool) -> None:
    """total += left @ right, or = for the first; a half-precision product is summed up in the wider type of the total."""
    if total.dtype == left.dtype:
        total.addmm_(left, right, beta=0 if first else 1)  # with 0, what was there is not read
    elif first:
        total.copy_(left @ right)
    else:
        total += left @ right


def chunk_rows(rows: int, vocab_size: int, dtype: torch.dtype, memory_budget_mib: float) -> int:
    """Rows of a chunk, at least 1 and nearly the same for all chunks, whose logits stay within the budget.

    In half precision there may be two of each logit: the product, and its log-probability in fp32. The rows are then a multiple
    of ROW_MULTIPLE, unless the budget is below that.
    """
    half = dtype != wide(dtype)
    bytes_per_logit = wide(dtype).itemsize + half * dtype.itemsize
    most = max(1, int(memory_budget_mib * 2**20 / (vocab_size * bytes_per_logit)))
    multiple = ROW_MULTIPLE if half and most >= ROW_MULTIPLE else 1
    chunks = max(1, math.ceil(rows / (most // multiple * multiple)))
    return max(1, math.ceil(rows / (chunks * multiple)) * multiple)
