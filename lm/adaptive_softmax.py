"""The adaptive softmax: frequent words first, and rare ones in clusters of fewer features that only their own targets pay for."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, log_softmax

from lm.frequency_clusters import frequency_clusters
from lm.heads import Head, HeadLoss, flattened, records_gradient
from lm.linear_cross_entropy import LinearCrossEntropy, chunk_rows, log_prob_chunks
from lm.precision import product_dtype, wide


class AdaptiveSoftmaxHead(Head):
    """One softmax over frequent words and clusters of rare ones, and one in each cluster (Grave et al. 2017, §4).

        p(w | h) = softmax(W_0 h)[w]                                   of a frequent word
        p(w | h) = softmax(W_0 h)[cluster i] · softmax(W_i P_i h)[w]   of a word of cluster i

    The same distribution as that of `nn.AdaptiveLogSoftmaxWithLoss`, in chunks as those of LinearHead. A cluster without a
    target gets a gradient of zero, where DDP would wait for one that is missing. Ids have to fall in frequency: those of the
    recipes Characters and Words do, those of BPE, WordPiece and Unigram nearly, and a list or a tokenizer.json may or may not.
    In training a language model checks it on the text.

    Args:
        hidden_size: features of h.
        vocab_size: number of ids.
        cutoffs: the first id of each cluster of rare words.
        div_value: how many times fewer features the words of each next cluster have.
        projection_size: features of P h that take the place of h, for weights that are shared with an embedding of this width;
            None leaves P out.
        memory_budget_mib: as in Head.

    Attributes:
        words: W of each cluster, `(words, features)`; the first is W_0 without its rows for clusters, which are `gate`.
        projections: P_i by the number of the cluster, stored as an embedding uses it, `(width, features)`.

    Raises:
        ValueError: if the cutoffs or features do not make clusters.
    """

    def __init__(
        self,
        hidden_size: int,
        vocab_size: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        projection_size: int | None = None,
        memory_budget_mib: float = 64,
    ) -> None:
        super().__init__(hidden_size, vocab_size, memory_budget_mib)
        width = projection_size or hidden_size
        self.cutoffs = list(cutoffs)
        self.first, *self.rare = frequency_clusters(vocab_size, width, cutoffs, div_value)
        self.projection = nn.Identity() if projection_size is None else nn.Linear(hidden_size, projection_size, bias=False)
        self.gate = nn.Linear(width, len(self.rare), bias=False)
        self.words = nn.ModuleList(nn.Linear(cluster.size, cluster.words, bias=False) for cluster in (self.first, *self.rare))
        self.projections = nn.ModuleDict({str(i): nn.Linear(rare.size, width, bias=False) for i, rare in enumerate(self.rare, 1)})
        for projection in self.projections.parameters():
            nn.init.uniform_(projection, -(width**-0.5), width**-0.5)  # as nn.Linear from h would be

    def loss(self, hidden: Tensor, targets: Tensor, weights: Tensor | None = None) -> HeadLoss:
        """As in Head; a double backward is refused.

        Raises:
            ValueError, IndexError: as LinearHead.
        """
        self.check(hidden, targets, weights)
        dtype = product_dtype(self.gate.weight)
        features = self.projection(hidden.reshape(-1, self.hidden_size))
        ids, row_weights = flattened(targets, weights, dtype)
        if not records_gradient(features, *self.parameters()):
            nll, correct = self.evaluate(features, ids, dtype)
            return HeadLoss((row_weights * nll).sum(), nll.view_as(targets), correct.view_as(targets))
        total, nll = self.cross_entropy(features, self.first_weight(), self.first_targets(ids), row_weights, dtype)
        for i, cluster in enumerate(self.rare, 1):
            rows = cluster.rows(ids)
            narrow, of_cluster = self.narrow(features.index_select(0, rows), i), ids[rows] - cluster.first
            part, part_nll = self.cross_entropy(narrow, self.cluster_weight(i), of_cluster, row_weights[rows], dtype)
            total, nll = total + part, nll.index_add(0, rows, part_nll)
        return HeadLoss(total, nll.view_as(targets), correct=None)

    def log_prob(self, hidden: Tensor) -> Tensor:
        """As in Head; all logits at once."""
        features = self.projection(hidden)
        logits = linear(features, self.first_weight())
        first = log_softmax(logits, dim=-1, dtype=wide(logits.dtype))
        parts = [first[..., : self.first.end]]
        for i in range(1, 1 + len(self.rare)):
            inside = linear(self.narrow(features, i), self.cluster_weight(i))
            gate = first[..., self.first.end + i - 1, None]
            parts.append(gate + log_softmax(inside, dim=-1, dtype=first.dtype))
        return torch.cat(parts, dim=-1)

    @torch.no_grad()
    def evaluate(self, features: Tensor, ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The nll of each row and whether its target is the most probable id.

        A cluster is entered by its own targets, and where the whole of it is more probable than the best word so far.
        """
        nll = torch.empty_like(ids, dtype=wide(dtype))
        best, best_id, gates = nll.clone(), ids.clone(), nll.new_empty(len(ids), len(self.rare))
        targets = self.first_targets(ids)
        for chunk, log_prob in self.chunks(features, self.first_weight(), dtype):
            nll[chunk] = -log_prob.gather(1, targets[chunk, None])[:, 0]
            gates[chunk] = log_prob[:, self.first.end :]
            best[chunk], best_id[chunk] = log_prob[:, : self.first.end].max(dim=1)
        for i, (cluster, gate) in enumerate(zip(self.rare, gates.unbind(1), strict=True), 1):
            rows = (cluster.holds(ids) | (gate > best)).nonzero()[:, 0]
            for chunk, log_prob in self.chunks(self.narrow(features[rows], i), self.cluster_weight(i), dtype):
                here = rows[chunk]
                target = (ids[here] - cluster.first).clamp(0, cluster.words - 1)
                nll[here] -= log_prob.gather(1, target[:, None])[:, 0] * cluster.holds(ids[here])
                inside, word = log_prob.max(dim=1)
                value = gate[here] + inside
                best_id[here] = torch.where(value > best[here], word + cluster.first, best_id[here])
                best[here] = value.maximum(best[here])
        return nll, best_id == ids

    def first_weight(self) -> Tensor:
        """W_0 `(frequent words + clusters, width)`."""
        return torch.cat([self.get_parameter("words.0.weight"), self.gate.weight])

    def first_targets(self, ids: Tensor) -> Tensor:
        """Ids `(rows,)` in the first softmax: those of rare words become that of their cluster."""
        targets = ids.clone()
        for i, cluster in enumerate(self.rare):
            targets[cluster.holds(ids)] = self.first.end + i
        return targets

    def cluster_weight(self, number: int) -> Tensor:
        """W_i `(words, features)` of a cluster of rare words."""
        return self.get_parameter(f"words.{number}.weight")

    def narrow(self, features: Tensor, number: int) -> Tensor:
        """P_i h: `(..., width)` -> `(..., features)` of a cluster of rare words."""
        return features @ self.get_parameter(f"projections.{number}.weight")

    def cross_entropy(
        self, features: Tensor, weight: Tensor, targets: Tensor, row_weights: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Σ row_weights·nll and the nll of each row, under one softmax."""
        chunk_size = chunk_rows(len(targets), len(weight), dtype, self.memory_budget_mib)
        total, nll = LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            features, weight, None, targets, row_weights, None, dtype, chunk_size, 0.0
        )
        return total, nll

    def chunks(self, features: Tensor, weight: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """Rows and their log-probabilities under one softmax, within the memory budget."""
        chunk_size = chunk_rows(len(features), len(weight), dtype, self.memory_budget_mib)
        return log_prob_chunks(features.to(dtype), weight.to(dtype), None, chunk_size)
