"""Translations, printed in the order of their lines."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from callbacks.heat_map import attention_figure, attention_text
from mt.translation import NONE_FOUND, Translation


class Printout:
    """Prints the translations of a line as soon as those of all lines before it are there.

    Args:
        n_best: lines that are printed for each line; where a line has fewer translations, the last of them are empty.
        scores: whether to begin each with its score and its log-probability, with tabs behind them.
        attention: `terminal`, or a folder for a picture of each translation, which is called LINE.RANK.png; None shows none.
    """

    def __init__(self, n_best: int, scores: bool, attention: str | None) -> None:
        self.n_best = n_best
        self.scores = scores
        self.attention = attention
        self.printed = 0
        self.waiting: dict[int, Sequence[Translation]] = {}

    def __str__(self) -> str:
        """How far it has come."""
        ahead = f", and {len(self.waiting)} further on, where lines without a translation are empty" if self.waiting else ""
        return f"{self.printed} {'line' if self.printed == 1 else 'lines'}{ahead}"

    def add(self, found: Mapping[int, Sequence[Translation]]) -> None:
        """Take the translations of lines by their numbers, which count from 0; of each line, the best first.

        Raises:
            ValueError: if attention is to be shown where there is none.
        """
        every = (translation for translations in found.values() for translation in translations)
        if self.attention is not None and any(translation.tokens and translation.attention is None for translation in every):
            raise ValueError("translate: this model has no attention to show; leave --attention out")
        self.waiting |= found
        while self.printed in self.waiting:
            self.print_next()

    def close(self) -> None:
        """Print what still waits; lines that are missing among it are empty, so that the others keep their places."""
        while self.waiting:
            self.print_next()

    def print_next(self) -> None:
        """Print the next line, for which there may be nothing."""
        found = self.waiting.pop(self.printed, ())
        self.printed += 1
        for rank in range(1, self.n_best + 1):
            self.show(found[rank - 1] if rank <= len(found) else NONE_FOUND, f"{self.printed}.{rank}.png")

    def show(self, found: Translation, picture: str) -> None:
        """Print a translation, and show or draw where the model looked."""
        print(f"{found.score:.4f}\t{found.log_prob:.4f}\t{found.text}" if self.scores else found.text, flush=True)
        if self.attention is None or found.attention is None or not found.tokens:
            return
        if self.attention == "terminal":
            Console(soft_wrap=True, highlight=False).print(attention_text(found.attention, found.source_tokens, found.tokens))
            return
        folder = Path(self.attention)
        folder.mkdir(parents=True, exist_ok=True)
        attention_figure(found.attention, found.source_tokens, found.tokens).savefig(folder / picture, dpi=120)
