"""Putting a source word where a translation says that it knows none."""

from collections.abc import Sequence

from torch import Tensor


def replace_unknown(
    tokens: Tensor, words: Sequence[str], attention: Tensor, source_words: Sequence[str], unknown: int
) -> list[str]:
    """Write, for each unknown word, the source word it attends to most (Jean et al. 2015, without their dictionary).

    Args:
        tokens: ids of one translation, `(length,)` or longer.
        words: the same in text, as many as are wanted.
        attention: `(length, source_time)` or longer.
        source_words: the source in text, one for each position that may be copied; `<eos>` behind them is not looked at.
        unknown: the id that is replaced.

    Raises:
        ValueError: if there are more words than tokens or attention, or no source word at all.
    """
    if len(words) > min(len(tokens), len(attention)) or not 0 < len(source_words) <= attention.shape[-1]:
        raise ValueError(
            f"unknown words: {len(words)} words of {len(tokens)} tokens cannot be looked up in attention of shape"
            f" {tuple(attention.shape)} over {len(source_words)} source words; give the rows and columns of this translation"
        )
    attended = attention[: len(words), : len(source_words)].argmax(dim=-1).tolist()
    ids = tokens[: len(words)].tolist()
    return [source_words[place] if i == unknown else word for i, word, place in zip(ids, words, attended, strict=True)]
