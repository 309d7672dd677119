"""Embeddings that start from vectors trained elsewhere."""

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from datamodules.tokenizers import Tokenizer
from datamodules.vectors import read_vectors


class PretrainedVectors(Callback):
    """Takes the vectors of a GloVe or word2vec text file into an embedding before training; a resumed run has its own.

    Words that the file lacks are drawn from a normal distribution with the mean and deviation of those that it has. How many it
    has is printed.

    Args:
        file: path or URL, plain or gzipped; `zip://FILE::ARCHIVE` for a file of an archive.
        embedding: path of the module, such as `network.embedding`, `encoder.network.embedding` or `decoder.network.embedding`.
        tokenizer: which one knows its words: `tokenizer`, `source_tokenizer` or `target_tokenizer`.
        frozen: leave the embedding as it is in training.

    Raises:
        FileNotFoundError, ValueError: in `setup`, if the file or the module does not fit.
    """

    def __init__(
        self, file: str, embedding: str = "network.embedding", tokenizer: str = "tokenizer", frozen: bool = False
    ) -> None:
        self.file = file
        self.embedding = embedding
        self.tokenizer = tokenizer
        self.frozen = frozen

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the vectors in place, so that what is tied to the embedding has them too."""
        if stage != "fit":
            return
        data = getattr(trainer, "datamodule", None)
        tokenizer = getattr(data, self.tokenizer, None) or getattr(pl_module, self.tokenizer, None)
        if not isinstance(tokenizer, Tokenizer):
            raise ValueError(f"PretrainedVectors: there is no {self.tokenizer} that knows words; name one with tokenizer")
        self.take(self.table(pl_module, len(tokenizer)), tokenizer.tokens(range(len(tokenizer))))

    def table(self, module: LightningModule, words: int) -> Tensor:
        """The embedding's weight `(words, features)`."""
        try:
            part = module.get_submodule(self.embedding)
        except AttributeError as error:
            names = ", ".join(name for name, kind in module.named_modules() if isinstance(kind, nn.Embedding))
            raise ValueError(
                f"PretrainedVectors: {type(module).__name__} has no {self.embedding}; its embeddings are {names}"
            ) from error
        if not isinstance(part, nn.Embedding) or len(part.weight) != words:
            raise ValueError(
                f"PretrainedVectors: {self.embedding} is {type(part).__name__} and no table of {words} words; name one with"
                " embedding, and its words with tokenizer"
            )
        return part.weight

    def take(self, weight: Tensor, words: list[str]) -> None:
        """Copy what the file has of these words, and say how much that is."""
        width, found = read_vectors(self.file, words)
        if width != weight.shape[1]:
            raise ValueError(
                f"PretrainedVectors: {self.file} has {width} numbers a word, and {self.embedding} {weight.shape[1]} features: set"
                f" embedding_size to {width}, or take other vectors"
            )
        if not found:
            raise ValueError(
                f"PretrainedVectors: {self.file} has none of the {len(words)} words of the vocabulary, such as {words[-1]!r}:"
                " take vectors of this language and case"
            )
        known = torch.tensor([word in found for word in words])
        vectors = torch.stack([torch.from_numpy(found[word]) for word in words if word in found])
        copy(weight, known, vectors)
        weight.requires_grad_(not self.frozen)
        share = f"{len(found):,} of the {len(words):,} words of {self.embedding} ({len(found) / len(words):.1%})"
        tell(f"vectors: {share} are in {self.file}")


@torch.no_grad()
def copy(weight: Tensor, known: Tensor, vectors: Tensor) -> None:
    """Put vectors into the rows that are known, and such as could be among them into the others."""
    weight[known] = vectors.to(weight)
    weight[~known] = torch.randn(int((~known).sum()), weight.shape[1]).to(weight) * vectors.std() + vectors.mean()


@rank_zero_only
def tell(line: str) -> None:
    """Print on one rank."""
    print(line, flush=True)
