"""Markov chains of words: `python -m experiments.markov {after,before,between} CHECKPOINT ...`, of a bigram model."""

from rich.console import Console
from rich.table import Table
from torch import Tensor

from datamodules.tokenizers import Tokenizer
from experiments.command import command
from lm.markov import MarkovChain
from lm.ngram import NGramModel


def after(checkpoint: str, word: str, steps: int = 1, top: int = 10) -> None:
    """Show the words that most probably follow a word so many steps later, whatever stands in between.

    Args:
        checkpoint: file written by a run of a bigram model.
        word: the word.
        steps: k, from 1.
        top: words to show.
    """
    model, tokenizer = bigrams(checkpoint)
    show(MarkovChain.of(model).after(token_of(word, tokenizer), steps), tokenizer, top, f"{steps} after {word!r}")


def before(checkpoint: str, word: str, steps: int = 1, top: int = 10) -> None:
    """Show the words that most probably stand so many steps before a word: the reverse conditional.

    Args:
        checkpoint: file written by a run of a bigram model.
        word: the word.
        steps: k, from 1.
        top: words to show.
    """
    model, tokenizer = bigrams(checkpoint)
    show(MarkovChain.of(model).before(token_of(word, tokenizer), steps), tokenizer, top, f"{steps} before {word!r}")


def between(checkpoint: str, first: str, last: str, length: int = 6) -> None:
    """Print the most likely sequence of a length between two words, by Viterbi's algorithm.

    Args:
        checkpoint: file written by a run of a bigram model.
        first: its first word.
        last: its last word.
        length: words in it, both ends among them.
    """
    model, tokenizer = bigrams(checkpoint)
    ends = (token_of(first, tokenizer), token_of(last, tokenizer))
    found, log_prob = MarkovChain.of(model).most_likely(*ends, length)
    print(f"{tokenizer.decode(found)}\nlog-probability after {first!r}: {log_prob:.2f}")


def bigrams(checkpoint: str) -> tuple[NGramModel, Tokenizer]:
    """A bigram model, which reads from the left, and its tokenizer.

    Raises:
        ValueError: if the checkpoint holds another model.
    """
    model = NGramModel.load_from_checkpoint(checkpoint)
    if model.direction != "left_to_right":
        raise ValueError(f"markov: the model of {checkpoint} reads {model.direction}; give one that reads left_to_right")
    return model, model.text_tokenizer()


def token_of(word: str, tokenizer: Tokenizer) -> int:
    """The id of a word.

    Raises:
        ValueError: if it is none of the vocabulary's.
    """
    ids = tokenizer.encode(word)
    if len(ids) != 1 or ids[0] == tokenizer.unknown:
        raise ValueError(f"markov: {word!r} is no token of the vocabulary of {len(tokenizer)}; give a single one that it has")
    return ids[0]


def show(distribution: Tensor, tokenizer: Tokenizer, top: int, title: str) -> None:
    """Print the most probable tokens."""
    if top < 1:
        raise ValueError(f"markov: top is a count of words from 1, got {top}")
    values, ids = distribution.topk(min(top, len(distribution)))
    table = Table("word", "probability", title=title)
    for token, value in zip(tokenizer.tokens(ids.tolist()), values.tolist(), strict=True):
        table.add_row(token, f"{value:.4f}")
    Console(highlight=False).print(table, markup=False)


if __name__ == "__main__":
    command({"after": after, "before": before, "between": between})
