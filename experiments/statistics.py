"""What the text of an experiment is made of: `python -m experiments.statistics CONFIG`."""

import importlib.util
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from datamodules import LanguageData
from datamodules.tokenizers import Tokenizer
from experiments.command import command
from experiments.show import data_of
from lm.ngram_counts import NGramCounts

NAMES = ("unigrams", "bigrams", "trigrams")


class Ranked(NamedTuple):
    """The n-grams of one length, the most frequent first.

    Attributes:
        name: of the length.
        counts: `(n-grams,)` how often each occurs, from the most frequent down.
        most: the most frequent, each as text.
    """

    name: str
    counts: np.ndarray
    most: list[str]


def statistics(
    config: str,
    top: int = 10,
    documents: int = 3,
    document_start: str | None = None,
    picture: str = "zipf.png",
    *,
    flags: Sequence[str] = (),
) -> None:
    """Count the unigrams, bigrams and trigrams of an experiment's training text, and show what stands out in its documents.

    The picture has the frequency of the n-grams over their rank, with Zipf's law, frequency = c/rank^s, fitted to each. What
    stands out in a document are the n-grams with the highest TF-IDF, by scikit-learn.

    Args:
        config: an experiment's YAML file.
        top: n-grams to show.
        documents: how many of the first documents to show what stands out of; 0 for none.
        document_start: a regular expression; a line that it is found in begins a document. By default every line is one.
        picture: file for the plot.
        flags: of the experiment's data, such as --data.source.train FILE.
    """
    if top < 1 or documents < 0:
        raise ValueError(f"statistics: top counts from 1 and documents from 0, got {top} and {documents}")
    data = data_of(config, flags)
    if not isinstance(data, LanguageData):
        raise TypeError(f"statistics: {config} has {type(data).__name__}; only a text of LanguageData can be counted")
    console = Console(soft_wrap=True, highlight=False)
    found = ranked(data.tokens("train"), data.tokenizer, top)
    console.print(frequencies(found), markup=False)
    exponents = draw(found, Path(picture))
    for name, exponent in exponents.items():
        console.print(f"{name}: frequency falls as 1/rank^{exponent:.2f}")
    console.print(f"picture: {picture}")
    if documents:
        show_documents(console, data, documents, document_start, top)


# Frequencies


def ranked(ids: np.ndarray, tokenizer: Tokenizer, top: int) -> list[Ranked]:
    """The unigrams, bigrams and trigrams of a text.

    Raises:
        ValueError: if it has not as many tokens as a trigram.
    """
    if len(ids) < len(NAMES):
        raise ValueError(f"statistics: a training text of {len(ids)} tokens has no trigrams; give a longer one")
    text = torch.from_numpy(np.asarray(ids, dtype=np.int64))[None]
    counts, found = NGramCounts.of(text, text.shape[1], len(NAMES), len(tokenizer)), []
    for length, (name, level) in enumerate(zip(NAMES, counts.levels, strict=True), start=1):
        falling, places = level.counts.sort(descending=True, stable=True)
        kinds = int((falling > 0).sum())
        most = [tokenizer.decode(n_gram) for n_gram in counts.tokens(length, places[: min(top, kinds)]).tolist()]
        found.append(Ranked(name, falling[:kinds].numpy(), most))
    return found


def frequencies(found: Sequence[Ranked]) -> Table:
    """The most frequent n-grams side by side, and how many there are."""
    columns = [column for one in found for column in (one.name, "times")]
    table = Table("rank", *columns, title="most frequent", show_footer=True)
    for place, one in enumerate(found):
        table.columns[1 + 2 * place].footer = f"{len(one.counts):,} kinds"
        table.columns[2 + 2 * place].footer = f"{int(one.counts.sum()):,}"
    for rank in range(max(len(one.most) for one in found)):
        row = [(one.most[rank], f"{one.counts[rank]:,}") if rank < len(one.most) else ("", "") for one in found]
        table.add_row(str(rank + 1), *(cell for pair in row for cell in pair))
    return table


def zipf(counts: np.ndarray) -> tuple[float, float]:
    """s and c of frequency = c/rank^s: least squares in logarithms, where each decade of ranks weighs the same.

    Otherwise the thousands of n-grams that occur once would decide.
    """
    rank = np.arange(1, len(counts) + 1)
    if len(counts) < 2:
        return 0.0, float(counts[0])
    slope, intercept = np.polyfit(np.log(rank), np.log(counts), 1, w=rank**-0.5)
    return -float(slope), float(np.exp(intercept))


def draw(found: Sequence[Ranked], path: Path) -> dict[str, float]:
    """Frequency over rank, and the law fitted to each; returns the exponents."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    exponents = {}
    for index, one in enumerate(found):
        rank = np.arange(1, len(one.counts) + 1)
        exponent, factor = zipf(one.counts)
        exponents[one.name] = exponent
        axes.plot(rank, one.counts, color=f"C{index}", label=one.name)
        law = factor / rank**exponent
        axes.plot(rank[law >= 0.5], law[law >= 0.5], "--", color=f"C{index}", alpha=0.6, label=f"rank^-{exponent:.2f}")
    axes.set(xlabel="rank", ylabel="frequency", xscale="log", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return exponents


# Documents


def show_documents(console: Console, data: LanguageData, count: int, start: str | None, top: int) -> None:
    """Print what stands out in the first documents."""
    if importlib.util.find_spec("sklearn") is None:
        console.print("what stands out in documents is not shown, for scikit-learn is missing: pip install 'unroll[statistics]'")
        return
    documents = list(divided(data.source.splits()["train"], start))
    console.print(f"\nHighest TF-IDF in the first of {len(documents):,} documents:")
    for first, terms in zip(documents, standing_out(documents, data.tokenizer, count, top), strict=False):
        console.print(f"  {first[0].strip()[:60]!r}: {', '.join(terms)}", markup=False)


def divided(lines: Iterable[str], start: str | None) -> Iterable[list[str]]:
    """The lines of each document that is not blank.

    Raises:
        ValueError: if the expression is none, or found in no line.
    """
    try:
        begins = None if start is None else re.compile(start)
    except re.error as error:
        raise ValueError(f"statistics: document_start {start!r} is no regular expression ({error})") from error
    document: list[str] = []
    some = False
    for line in lines:
        if begins is None or begins.search(line):
            some = True
            if any(document):
                yield document
            document = []
        if line.strip():
            document.append(line)
    if not some:
        raise ValueError(f"statistics: document_start {start!r} is found in no line of the text; give one that is")
    if document:
        yield document


def standing_out(documents: Sequence[Sequence[str]], tokenizer: Tokenizer, count: int, top: int) -> Iterable[list[str]]:
    """The unigrams, bigrams and trigrams with the highest TF-IDF in each of the first documents, the highest first."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [tokenizer.tokens(tokenizer.encode("\n".join(document))) for document in documents]
    vectorizer = TfidfVectorizer(analyzer=n_grams, sublinear_tf=True)  # or "the" would stand out by being frequent everywhere
    weights = vectorizer.fit_transform(texts)
    names = vectorizer.get_feature_names_out()
    for row in islice(range(len(texts)), count):
        found = weights[row]
        best = found.indices[np.argsort(-found.data, kind="stable")[:top]]
        yield [str(names[index]) for index in best]


def n_grams(tokens: Sequence[str]) -> list[str]:
    """All up to the longest that have names, each with spaces between its tokens."""
    return [" ".join(tokens[i : i + n]) for n in range(1, len(NAMES) + 1) for i in range(len(tokens) - n + 1)]


if __name__ == "__main__":
    command(statistics, others="flags")
