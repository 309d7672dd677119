"""Translate text: `python -m experiments.translate CHECKPOINT [FILE]`."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from lightning.pytorch.utilities.memory import is_oom_error
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from datamodules.tokenizers import Tokenizer
from experiments.command import command, import_trusted
from experiments.lines import arriving_lines
from experiments.printout import Printout
from experiments.processor import prepare_processor
from mt import Seq2Seq, Translation
from mt.beam import BeamSearch
from mt.evaluation import LONGEST
from mt.ranking import Ranking
from mt.search import GreedySearch, Search
from mt.translation import tokenizers_of
from mt.translation import translate as translate_texts
from mt.tree import TreeSearch

BATCHES_AHEAD = 16
"""Batches of lines that are sorted by length together, and put back in order; fewer where more would have to be waited for."""


def translate(
    checkpoint: str,
    file: str | None = None,
    ensemble: list[str] = [],  # noqa: B006  (never changed; a tuple could not be appended to on the command line)
    search: Search | None = None,
    beam: int | None = None,
    alpha: float | None = None,
    patience: float | None = None,
    n_best: int | None = None,
    prefix: str = "",
    scores: bool = False,
    attention: str | None = None,
    copy_unknown: bool = False,
    batch_size: int = 64,
    longest: int = LONGEST,
    half: bool = False,
    trust: str = "",
) -> None:
    """Translate each line of a text; an empty line has an empty translation. Without a file or a pipe, type line by line.

    A line is printed once it and all before it are translated. What ends the command early leaves what is translated printed.

    Args:
        checkpoint: file written by a run, such as runs/numbers_en_fr/.../checkpoints/best.ckpt.
        file: text to translate; standard input if none is given.
        ensemble: another checkpoint whose probabilities are averaged with these; can be given several times.
        search: how translations are found, by its class path, such as `mt.sampled.SamplingSearch --search.samples 4`, or a YAML
            file of class_path and init_args; if none is given, as the model came with.
        beam: width of a beam search, 1 for greedy; everything else stays as it is in the search, if that is a beam too.
        alpha: strength of a beam's length normalisation.
        patience: stop a beam with its first patience · width translations that end, in less time and now and then with a worse
            one; 1 is JoeyNMT's rule.
        n_best: translations of each line, the best first: so many lines are printed for each, an empty one among them, and the
            last are empty where fewer are found. If it is not given, as many as a `--search` finds, and one without that.
        prefix: what every translation begins with.
        scores: begin each translation with its score and its log-probability in nats.
        attention: show where the model looked: `terminal`, or a folder for a picture of each translation.
        copy_unknown: write the source word that was looked at most in place of an unknown word.
        batch_size: lines at once.
        longest: tokens of a line that are read; what is behind them is left out, and standard error says so.
        half: compute products in bf16, where a GPU or processor is faster at it; some translations differ.
        trust: modules of your own that the checkpoint may name, with commas between them.
    """
    if batch_size < 1 or longest < 1 or (n_best is not None and n_best < 1):
        raise ValueError(f"translate: batch_size, longest and n_best count from 1, got {batch_size}, {longest} and {n_best}")
    prepare_processor()
    import_trusted(trust)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = [Seq2Seq.load_from_checkpoint(path).to(device) for path in (checkpoint, *ensemble)]
    wanted = n_best or (search.count if search else 1)
    search = chosen_search(search or models[0].search, beam, alpha, patience, wanted)
    tokenizer, _ = tokenizers_of(models)
    printout = Printout(wanted, scores, attention)
    typing = file is None and sys.stdin.isatty()
    lines = ([line] for line in typed()) if typing else arriving_lines(file)
    # A bar among lines on one screen would be written over, and write over them.
    progress_hidden = typing or not sys.stderr.isatty() or sys.stdout.isatty()
    precision = torch.autocast(device, torch.bfloat16, enabled=half)
    with precision, progress_bar(hidden=progress_hidden) as progress:
        counter = progress.add_task("", total=None, rate=0.0)
        try:
            for batch in batches(lines, batch_size):
                numbers, texts = zip(*batch, strict=True)
                translations = translate_texts(
                    models, texts, search, numbers, prefixes=prefix, longest=longest, copy_unknown=copy_unknown
                )
                printout.add(dict(zip(numbers, translations, strict=True)))
                for note in cuts(batch, translations, tokenizer, longest):
                    progress.console.print(note, markup=False, highlight=False, soft_wrap=True)
                progress.update(counter, advance=len(batch))
                progress.update(counter, rate=progress.tasks[0].completed / (progress.tasks[0].elapsed or 1))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"translate: interrupted after {printout}") from None
        except (RuntimeError, MemoryError) as error:
            if not is_oom_error(error) and not isinstance(error, MemoryError):
                raise
            raise ValueError(
                f"translate: out of memory after {printout}; lower --batch_size, now {batch_size}, or --longest, now {longest}"
            ) from None
        finally:
            printout.close()


def chosen_search(search: Search, beam: int | None, alpha: float | None, patience: float | None, n_best: int) -> Search:
    """A search with what was asked for changed in it, and nothing else.

    Raises:
        ValueError: if it has no alpha or patience, or finds fewer translations than are wanted.
    """
    for name, value, kind in (("alpha", alpha, TreeSearch), ("patience", patience, BeamSearch)):
        if value is not None and beam is None and not isinstance(search, kind):
            raise ValueError(f"translate: {name}={value} is of a beam, and {type(search).__name__} is none; give --beam too")
    if beam == 1:
        search = GreedySearch(constraints=search.constraints)
    elif beam is not None and isinstance(search, BeamSearch):
        search = replace(search, width=beam, n_best=n_best)
    elif beam is not None:
        ranking = search.ranking if isinstance(search, TreeSearch) else Ranking()
        search = BeamSearch(width=beam, n_best=n_best, ranking=ranking, constraints=search.constraints)
    if isinstance(search, TreeSearch):
        ranking = search.ranking if alpha is None else replace(search.ranking, alpha=alpha)
        search = replace(search, n_best=n_best, ranking=ranking)
    if isinstance(search, BeamSearch) and patience is not None:
        search = replace(search, patience=patience)
    if n_best > search.count:
        raise ValueError(
            f"translate: {type(search).__name__} finds {search.count}, not {n_best}; give --beam {n_best} or more, or a --search"
            " that does"
        )
    return search


def typed() -> Iterator[str]:
    """What a person types, until the end of the input."""
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return


def batches(groups: Iterable[list[str]], size: int) -> Iterator[list[tuple[int, str]]]:
    """Lines with their numbers, which count from 0, in batches of about one length, a group after the other."""
    count = 0
    for group in groups:
        for start in range(0, len(group), size * BATCHES_AHEAD):
            ahead = group[start : start + size * BATCHES_AHEAD]
            ordered = sorted(enumerate(ahead, start=count), key=lambda line: len(line[1]))
            count += len(ahead)
            for first in range(0, len(ordered), size):
                yield ordered[first : first + size]


def cuts(
    batch: Sequence[tuple[int, str]], translations: Sequence[Sequence[Translation]], tokenizer: Tokenizer, longest: int
) -> Iterator[str]:
    """What to say of each line that was not read to its end."""
    for (number, text), (best, *_) in zip(batch, translations, strict=True):
        if len(best.source_tokens) > longest and (length := len(tokenizer.encode(text))) > longest:
            yield f"line {number + 1}: only the first {longest} of its {length} tokens are read, see --longest"


def progress_bar(hidden: bool) -> Progress:
    """How many sentences are done, and how fast, where a person looks on."""
    columns = (TextColumn("{task.completed:.0f} sentences, {task.fields[rate]:.1f} a second"), TimeElapsedColumn())
    # Redirected, translations would be printed above the bar, on standard error.
    return Progress(
        *columns,
        console=Console(stderr=True),
        disable=hidden,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


if __name__ == "__main__":
    command(translate, optional="file")
