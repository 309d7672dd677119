"""Weights of the words of one vocabulary for those of another."""

import torch
from torch import Tensor

from datamodules.tokenizers import Tokenizer


def transferred(rows: Tensor, theirs: Tokenizer, ours: Tokenizer) -> tuple[Tensor, int]:
    """The rows of a weight in the order of another vocabulary.

    Args:
        rows: `(len(theirs), features)`.
        theirs: the vocabulary that they are of.
        ours: the vocabulary that they are wanted for.

    Returns:
        `(len(ours), features)`: the row of the same token, or the mean of all rows where there is none, as ULMFiT begins words
        that the language model has not seen; and how many tokens have a row of their own.

    Raises:
        ValueError: if there is not one row for each entry of `theirs`.
    """
    if len(rows) != len(theirs):
        raise ValueError(f"vocabulary: a weight of {len(rows)} rows has none for each of {len(theirs)} entries")
    places = {token: number for number, token in enumerate(theirs.tokens(range(len(theirs))))}
    found = torch.tensor([places.get(token, -1) for token in ours.tokens(range(len(ours)))])
    known = found >= 0
    taken = rows.mean(dim=0).expand(len(ours), *rows.shape[1:]).clone()
    taken[known] = rows[found[known]]
    return taken, int(known.sum())
