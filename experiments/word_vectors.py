"""Word vectors in GloVe's format, made from a text: `python -m experiments.word_vectors TEXT --to vectors.txt`."""

from pathlib import Path

import numpy as np

from datamodules.pmi import word_vectors
from datamodules.recipes import Normalization, Words
from datamodules.sources import Files
from datamodules.vectors import lines_of
from experiments.command import command


def make_vectors(
    text: str,
    to: str = "vectors.txt",
    size: int = 300,
    window: int = 5,
    min_frequency: int = 2,
    normalization: Normalization = "none",
    validation_fraction: float = 0.0,
) -> None:
    """Make vectors of the words of a text, from how often they stand near one another.

    Args:
        text: its file, path or URL, a line a text.
        to: the file to write.
        size: numbers of a word.
        window: how far from a word a neighbour may be.
        min_frequency: words seen less often get no vector.
        normalization: of the text, as a tokenizer's recipe has it.
        validation_fraction: leave out this share of the lines, from the end, as the data of an experiment does.
    """
    lines = list(Files(text, validation_fraction=validation_fraction).splits()["train"])
    recipe = Words(min_frequency=min_frequency, normalization=normalization)
    tokenizer = recipe.train(lines)
    end = tokenizer.end
    assert end is not None
    tokens = np.array([token for ids in tokenizer.encode_batch(lines) for token in [*ids, end]])
    vectors = word_vectors(tokens, len(tokenizer), size, window)
    with Path(to).open("w", encoding="utf-8") as file:
        file.writelines(lines_of(tokenizer.tokens(range(len(tokenizer))), vectors))
    print(f"vectors: {len(tokenizer):,} words of {size} numbers from {len(tokens):,} tokens: {to}")


if __name__ == "__main__":
    command(make_vectors)
