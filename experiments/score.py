"""Score text: `python -m experiments.score CHECKPOINT [FILE]`; translations of it with `--references FILE`."""

import math
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.text import Text

from experiments.command import command, import_trusted
from experiments.lines import lines_of
from lm import SequenceModule, TextModel
from lm.text_score import TextScore
from mt import Seq2Seq

LINES_AT_ONCE = 32
SURPRISING_BITS = 12.0


def score(checkpoint: str, file: str | None = None, references: str | None = None, tokens: bool = True, trust: str = "") -> None:
    """Score each line of a text with a trained model, and rank the lines.

    A language model scores a line from its beginning to its end as one sentence of its own: its log-probability in nats, its
    perplexity, and the surprisal of each of its tokens, −log₂ P in bits. A translation model scores a reference for each
    line in the same way, given the line.

    Args:
        checkpoint: file written by a run, such as runs/quickstart/.../checkpoints/best.ckpt.
        file: text to score, or whose translations to score; standard input if none is given.
        references: for a translation model, file in which line n translates line n; an empty line is the end of a sentence alone.
        tokens: show the surprisal of each token.
        trust: modules of your own that the checkpoint may name, with commas between them.
    """
    import_trusted(trust)
    model = SequenceModule.load_from_checkpoint(checkpoint)
    if isinstance(model, Seq2Seq):
        if references is None:
            raise ValueError(
                f"score: {checkpoint} holds a translation model, which scores translations: give a file of them, a line for each"
                " line of the text, with --references"
            )
        pairs = read_pairs(file, references)
        scores = in_batches(model.score, *zip(*pairs, strict=True))
        show([f"{source} -> {target}" for source, target in pairs], scores, "pairs", tokens)
    elif isinstance(model, TextModel):
        if references is not None:
            raise ValueError(
                f"score: {checkpoint} holds a language model, which scores lines by themselves: leave out --references"
                f" {references}, or give the checkpoint of a translation model"
            )
        lines = read_lines(file)
        show(lines, in_batches(model.score, lines), "lines", tokens)
    else:
        raise ValueError(
            f"score: {checkpoint} holds a {type(model).__name__}: give the checkpoint of a language model or translation model"
        )


def read_lines(file: str | None) -> list[str]:
    """The lines of a file or of standard input that hold more than space.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, or no such line.
    """
    lines = [line for line in lines_of(file) if line.strip()]
    if not lines:
        raise ValueError(f"score: {file or 'standard input'} holds no line to score")
    return lines


def read_pairs(file: str | None, references: str) -> list[tuple[str, str]]:
    """The lines of a file or of standard input, each with its reference; either may be empty.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, no line, or not as many references as lines.
    """
    sources, targets, name = list(lines_of(file)), list(lines_of(references)), file or "standard input"
    if len(sources) != len(targets):
        raise ValueError(
            f"score: {name} has {len(sources)} lines and {references} has {len(targets)}:"
            " line n of one has to translate line n of the other"
        )
    if not sources:
        raise ValueError(f"score: {name} holds no line to score")
    return list(zip(sources, targets, strict=True))


def in_batches(score: Callable[..., list[TextScore]], *columns: Sequence[str]) -> list[TextScore]:
    """The score of each row of columns of texts."""
    starts = range(0, len(columns[0]), LINES_AT_ONCE)
    return [found for start in starts for found in score(*(column[start : start + LINES_AT_ONCE] for column in columns))]


def show(lines: Sequence[str], scores: Sequence[TextScore], unit: str, tokens: bool) -> None:
    """Print each line with its score, their sum, and the lines ranked."""
    console = Console(soft_wrap=True, highlight=False)
    for line, found in zip(lines, scores, strict=True):
        console.print(f"{found.log_prob:10.2f}  perplexity {found.perplexity:10.2f}  {line}", markup=False)
        if tokens:
            console.print(surprisals(found))
    nll, count = sum(-found.log_prob for found in scores), sum(len(found.nll) for found in scores)
    console.print(
        f"\n{len(lines)} {unit}, {count} tokens: log-probability {-nll:.2f}, perplexity {math.exp(nll / max(1, count)):.2f}"
    )
    console.print("\nFrom the most to the least probable:")
    for place, index in enumerate(sorted(range(len(lines)), key=lambda index: -scores[index].log_prob), start=1):
        console.print(f"{place:4}. {scores[index].log_prob:10.2f}  {lines[index]}", markup=False)


def surprisals(found: TextScore) -> Text:
    """Tokens with their surprisal in bits, the more surprising the redder."""
    bits = found.nll / math.log(2)
    shown = Text("            ")
    for token, value, heat in zip(found.tokens, bits.tolist(), (bits / SURPRISING_BITS).clamp(0, 1).tolist(), strict=True):
        shown.append(token, style=f"rgb({int(80 + 175 * heat)},{int(200 - 140 * heat)},80)")
        shown.append(f" {value:.1f}  ", style="dim")
    return shown


if __name__ == "__main__":
    command(score, optional="file")
