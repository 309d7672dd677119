"""Score text: `python -m experiments.score CHECKPOINT [FILE]`."""

import math
import sys
from itertools import islice
from pathlib import Path

import torch
from rich.console import Console
from rich.text import Text

from experiments.command import command, import_trusted
from lm.module import LanguageModel, TextScore

LINES_AT_ONCE = 32
SURPRISING_BITS = 12.0


def score(checkpoint: str, file: str | None = None, tokens: bool = True, trust: str = "") -> None:
    """Score each line of a text with a trained language model, and rank the lines.

    A line is scored from its beginning to its end as one sentence of its own: its log-probability in nats, its perplexity,
    and the surprisal of each of its tokens, −log₂ P in bits.

    Args:
        checkpoint: file written by a run, such as runs/quickstart/.../checkpoints/best.ckpt.
        file: text to score; standard input if none is given.
        tokens: show the surprisal of each token.
        trust: modules of your own that the checkpoint may name, with commas between them.
    """
    import_trusted(trust)
    model = LanguageModel.load_from_checkpoint(checkpoint)
    lines = read_lines(file)
    scores: list[TextScore] = []
    remaining = iter(lines)
    while batch := list(islice(remaining, LINES_AT_ONCE)):
        scores.extend(model.score(batch))
    console = Console(soft_wrap=True, highlight=False)
    for line, found in zip(lines, scores, strict=True):
        console.print(f"{found.log_prob:10.2f}  perplexity {found.perplexity:10.2f}  {line}", markup=False)
        if tokens:
            console.print(surprisals(found))
    nll, count = sum(-found.log_prob for found in scores), sum(len(found.nll) for found in scores)
    console.print(
        f"\n{len(lines)} lines, {count} tokens: log-probability {-nll:.2f}, perplexity {math.exp(nll / max(1, count)):.2f}"
    )
    console.print("\nFrom the most to the least probable:")
    for place, index in enumerate(sorted(range(len(lines)), key=lambda index: -scores[index].log_prob), start=1):
        console.print(f"{place:4}. {scores[index].log_prob:10.2f}  {lines[index]}", markup=False)


def read_lines(file: str | None) -> list[str]:
    """The lines of a file or of standard input that hold more than space.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, or no such line.
    """
    if file is not None and not Path(file).is_file():
        raise FileNotFoundError(f"score: there is no file {file}; give a text file, or pipe text in")
    text = sys.stdin.read() if file is None else Path(file).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"score: {file or 'standard input'} holds no line to score")
    return lines


def surprisals(found: TextScore) -> Text:
    """Tokens with their surprisal in bits, the more surprising the redder."""
    bits = found.nll / math.log(2)
    shown = Text("            ")
    for token, value, heat in zip(found.tokens, bits.tolist(), (bits / SURPRISING_BITS).clamp(0, 1).tolist(), strict=True):
        shown.append(token, style=f"rgb({int(80 + 175 * heat)},{int(200 - 140 * heat)},80)")
        shown.append(f" {value:.1f}  ", style="dim")
    return shown


if __name__ == "__main__":
    torch.set_flush_denormal(True)
    command(score, optional="file")
