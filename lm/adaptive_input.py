"""Adaptive input: embeddings in which rare words have fewer features than frequent ones."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lm.frequency_clusters import frequency_clusters


class AdaptiveEmbedding(nn.Module):
    """Embeddings of clusters of words, projected to one width (Baevski & Auli 2019, §3).

    Words of the first cluster have all features and need no projection (the paper gives them one too). Parameters have the
    names and shapes of those in `lm.adaptive_softmax.AdaptiveSoftmaxHead`, so that `callbacks.WeightTying` shares them all, or
    `words` alone. Ids have to fall in frequency, as there. Like those of nn.Embedding, features start from N(0, 1).

    Args:
        vocab_size: number of ids.
        embedding_size: features of an embedding.
        cutoffs: the first id of each cluster of rare words.
        div_value: how many times fewer features the words of each next cluster have.

    Raises:
        ValueError: if the cutoffs or features do not make clusters.
    """

    def __init__(self, vocab_size: int, embedding_size: int, cutoffs: Sequence[int], div_value: float = 4.0) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.embedding_size = embedding_size
        self.cutoffs = list(cutoffs)
        self.clusters = frequency_clusters(vocab_size, embedding_size, cutoffs, div_value)
        self.words = nn.ModuleList(nn.Embedding(cluster.words, cluster.size) for cluster in self.clusters)
        self.projections = nn.ModuleDict(
            {str(i): nn.Linear(cluster.size, embedding_size, bias=False) for i, cluster in enumerate(self.clusters) if i}
        )
        for projection in self.projections.parameters():
            nn.init.normal_(projection, std=projection.shape[1] ** -0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Ids `(...)` -> `(..., embedding_size)`; a cluster without an id gets a gradient of zero."""
        ids = tokens.reshape(-1)
        rows = [cluster.rows(ids) for cluster in self.clusters]
        parts = []
        for i, (cluster, of_cluster) in enumerate(zip(self.clusters, rows, strict=True)):
            embedded = self.words[i](ids[of_cluster] - cluster.first)
            parts.append(self.projections[str(i)](embedded) if i else embedded)
        return torch.cat(parts).index_select(0, torch.cat(rows).argsort()).view(*tokens.shape, self.embedding_size)
