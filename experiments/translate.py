"""Translate text: `python -m experiments.translate CHECKPOINT [FILE]`."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from callbacks.heat_map import attention_figure, attention_text
from experiments.command import command, import_trusted
from experiments.lines import lines_of
from mt import Seq2Seq, Translation
from mt.beam import BeamSearch
from mt.ranking import Ranking
from mt.search import GreedySearch, Search
from mt.translation import translate as translate_batch
from mt.tree import TreeSearch

BATCHES_AHEAD = 16
"""Batches of lines that are read together, sorted by length, and put back in order."""


def translate(
    checkpoint: str,
    file: str | None = None,
    ensemble: list[str] = [],  # noqa: B006  (never changed; a tuple could not be appended to on the command line)
    beam: int | None = None,
    alpha: float = 0.75,
    n_best: int = 1,
    scores: bool = False,
    attention: str | None = None,
    copy_unknown: bool = False,
    batch_size: int = 64,
    longest: int = 1000,
    trust: str = "",
) -> None:
    """Translate each line of a text; an empty line has an empty translation. Without a file or a pipe, type line by line.

    Args:
        checkpoint: file written by a run, such as runs/numbers_en_fr/.../checkpoints/best.ckpt.
        file: text to translate; standard input if none is given.
        ensemble: another checkpoint whose probabilities are averaged with these; can be given several times.
        beam: width of a beam search, 1 for greedy; if none is given, the search that the model came with.
        alpha: of a beam that is given, strength of its length normalisation.
        n_best: translations of each line, the best first.
        scores: begin each translation with its score and its log-probability in nats.
        attention: show where the model looked: `terminal`, or a folder for a picture of each translation.
        copy_unknown: write the source word that was looked at most in place of an unknown word.
        batch_size: lines at once.
        longest: tokens of a line that are read; what is behind them is left out.
        trust: modules of your own that the checkpoint may name, with commas between them.
    """
    if batch_size < 1 or longest < 1 or n_best < 1:
        raise ValueError(f"translate: batch_size, longest and n_best count from 1, got {batch_size}, {longest} and {n_best}")
    import_trusted(trust)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = [Seq2Seq.load_from_checkpoint(path).to(device) for path in (checkpoint, *ensemble)]
    search = chosen_search(models[0].search, beam, alpha, n_best)
    typing = file is None and sys.stdin.isatty()
    lines = typed() if typing else lines_of(file)
    with progress_bar(hidden=typing or not sys.stderr.isatty()) as progress:
        counter, number = progress.add_task("", total=None, rate=0.0), 0
        while texts := list(islice(lines, 1 if typing else batch_size * BATCHES_AHEAD)):
            found: dict[int, list[Translation]] = {}
            for batch in by_length(texts, batch_size):
                numbers = [number + place for place in batch]
                translations = translate_batch(
                    models, [texts[place] for place in batch], search, numbers, longest=longest, copy_unknown=copy_unknown
                )
                found |= dict(zip(batch, translations, strict=True))
                progress.update(counter, advance=len(batch))
                progress.update(counter, rate=progress.tasks[0].completed / (progress.tasks[0].elapsed or 1))
            for place in range(len(texts)):
                number += 1
                for rank, translation in enumerate(found[place][:n_best], start=1):
                    show(translation, scores, attention, f"{number}.{rank}.png")
            sys.stdout.flush()


def chosen_search(own: Search, beam: int | None, alpha: float, n_best: int) -> Search:
    """The search that was asked for.

    Raises:
        ValueError: if it finds fewer translations than are wanted.
    """
    search = own
    if beam == 1:
        search = GreedySearch(constraints=own.constraints)
    elif beam is not None:
        search = BeamSearch(width=beam, n_best=n_best, ranking=Ranking(alpha=alpha), constraints=own.constraints)
    elif isinstance(own, TreeSearch):
        search = replace(own, n_best=n_best)
    if n_best > search.count:
        raise ValueError(f"translate: {type(search).__name__} finds {search.count}, not {n_best}; give --beam {n_best} or more")
    return search


def typed() -> Iterator[str]:
    """What a person types, until the end of the input."""
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return


def by_length(texts: Sequence[str], batch_size: int) -> Iterator[list[int]]:
    """The places of texts in batches of about one length."""
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def progress_bar(hidden: bool) -> Progress:
    """How many sentences are done, and how fast, where a person looks on."""
    columns = (TextColumn("{task.completed:.0f} sentences, {task.fields[rate]:.1f} a second"), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), disable=hidden, transient=True)


def show(found: Translation, scores: bool, attention: str | None, picture: str) -> None:
    """Print a translation, and show or draw where the model looked."""
    print(f"{found.score:.4f}\t{found.log_prob:.4f}\t{found.text}" if scores else found.text)
    if attention is None or found.attention is None or not found.tokens:
        return
    if attention == "terminal":
        Console(soft_wrap=True, highlight=False).print(attention_text(found.attention, found.source_tokens, found.tokens))
        return
    folder = Path(attention)
    folder.mkdir(parents=True, exist_ok=True)
    attention_figure(found.attention, found.source_tokens, found.tokens).savefig(folder / picture, dpi=120)


if __name__ == "__main__":
    command(translate, optional="file")
