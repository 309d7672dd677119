"""A mixture of softmaxes: a head whose log-probabilities are of a higher rank than its hidden states."""

from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, log_softmax

from lm.dropout import LockedDropout
from lm.heads import Head, HeadLoss, flattened, records_gradient
from lm.linear_cross_entropy import LinearCrossEntropy, chunk_rows, log_prob_chunks
from lm.precision import product_dtype, wide


class MixtureOfSoftmaxesHead(Head):
    """Several softmaxes over one W, mixed by a prior that the hidden state gives (Yang et al. 2018, §3.2).

        p(w | h) = Σ_k π_k softmax(W h_k + b)[w]
        h_k = tanh(V_k h + c_k)
        π = softmax(U h)

    Its loss costs as much as that of `experts` linear heads, in time and not in memory.

    Args:
        hidden_size: features of h.
        vocab_size: number of ids.
        experts: number of softmaxes K; the paper has 15.
        bias: whether there is a b.
        projection_size: features of h_k, for a W that is shared with an embedding of this width; None for those of h.
        latent_dropout: rate of the features of h_k, one mask a sequence.
        memory_budget_mib: as in Head; all experts of a position are in one chunk.

    Raises:
        ValueError: if there is no expert.
    """

    def __init__(
        self,
        hidden_size: int,
        vocab_size: int,
        experts: int = 10,
        bias: bool = True,
        projection_size: int | None = None,
        latent_dropout: float = 0.0,
        memory_budget_mib: float = 64,
    ) -> None:
        super().__init__(hidden_size, vocab_size, memory_budget_mib)
        if experts < 1:
            raise ValueError(f"MixtureOfSoftmaxesHead: {experts=} leaves nothing to mix: give it at least 1, such as 10")
        self.experts = experts
        self.size = projection_size or hidden_size
        self.prior = nn.Linear(hidden_size, experts, bias=False)
        self.latent = nn.Linear(hidden_size, experts * self.size)
        self.latent_dropout = LockedDropout(latent_dropout)
        self.weight = nn.Parameter(torch.empty(vocab_size, self.size))
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if bias else None
        nn.init.uniform_(self.weight, -(self.size**-0.5), self.size**-0.5)  # as nn.Linear does

    def loss(self, hidden: Tensor, targets: Tensor, weights: Tensor | None = None) -> HeadLoss:
        """As in Head; a double backward is refused.

        With the responsibilities q_k = π_k p_k / Σ_j π_j p_j, −log Σ_k π_k p_k = Σ_k q_k (−log p_k − log π_k + log q_k). As a
        function of q the right side is smallest there, so the gradient may take q for constant: what is left of the experts is
        a cross-entropy with weights.

        Raises:
            ValueError, IndexError: as LinearHead.
        """
        self.check(hidden, targets, weights)
        dtype = product_dtype(self.weight)
        ids, row_weights = flattened(targets, weights, dtype)
        chunk_size = self.experts * chunk_rows(len(ids), self.experts * self.vocab_size, dtype, self.memory_budget_mib)
        operands = (self.latents(hidden).flatten(0, 1), self.weight, self.bias)
        log_prior = self.log_prior(hidden)
        if not records_gradient(*operands, log_prior):
            nll, correct = evaluate_mixture(*operands, log_prior, ids, dtype, chunk_size)
            return HeadLoss((row_weights * nll).sum(), nll.view_as(targets), correct.view_as(targets))
        of_experts, expert_nll = LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            *operands, *(rows.repeat_interleave(self.experts) for rows in (ids, row_weights)),
            log_prior.detach(), dtype, chunk_size, 0.0,
        )  # fmt: skip
        joint = log_prior.detach() - expert_nll.view_as(log_prior)
        of_prior = (joint.softmax(dim=1) * (joint.log_softmax(dim=1) - log_prior)).sum(dim=1)
        return HeadLoss(of_experts + (row_weights * of_prior).sum(), -joint.logsumexp(dim=1).view_as(targets), correct=None)

    def log_prob(self, hidden: Tensor) -> Tensor:
        """As in Head; the logits of one expert after another's."""
        shares = self.log_prior(hidden).unsqueeze(2).unbind(1)
        experts = (linear(latent, self.weight, self.bias) for latent in self.latents(hidden).unbind(1))
        parts = (share + log_softmax(logits, dim=1, dtype=share.dtype) for share, logits in zip(shares, experts, strict=True))
        return reduce(torch.logaddexp, parts).view(*hidden.shape[:-1], self.vocab_size)

    def latents(self, hidden: Tensor) -> Tensor:
        """h_k `(positions, experts, size)` after dropout; hidden states without a time are each a sequence of their own."""
        latents = self.latent(hidden).tanh()
        sequences = latents if latents.dim() == 3 else latents.reshape(-1, 1, latents.shape[-1])
        dropped: Tensor = self.latent_dropout(sequences)
        return dropped.reshape(-1, self.experts, self.size)

    def log_prior(self, hidden: Tensor) -> Tensor:
        """log π `(positions, experts)`, in a wide type."""
        logits = self.prior(hidden.reshape(-1, self.hidden_size))
        return log_softmax(logits, dim=1, dtype=wide(logits.dtype))


def evaluate_mixture(
    latents: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    log_prior: Tensor,
    targets: Tensor,
    dtype: torch.dtype,
    chunk_size: int,
) -> tuple[Tensor, Tensor]:
    """The nll of each position and whether its target is the most probable id.

    Args:
        latents: `(positions·experts, features)`.
        weight: `(vocab_size, features)`.
        bias: `(vocab_size,)` or None.
        log_prior: `(positions, experts)`.
        targets: `(positions,)`.
        dtype: what the matrix products compute in.
        chunk_size: rows of latents whose logits exist at a time, those of whole positions.
    """
    experts = log_prior.shape[1]
    nll, correct = torch.empty_like(targets, dtype=wide(dtype)), torch.empty_like(targets, dtype=torch.bool)
    operands = (latents.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    for chunk, log_prob in log_prob_chunks(*operands, chunk_size):
        positions = slice(chunk.start // experts, chunk.stop // experts)
        target = targets[positions]
        joint = log_prob.view(len(target), experts, -1).add_(log_prior[positions, :, None])
        nll[positions] = -joint.gather(2, target[:, None, None].expand(-1, experts, 1)).logsumexp(dim=1)[:, 0]
        correct[positions] = joint.exp_().sum(dim=1).argmax(dim=1) == target
    return nll, correct
