"""Back-pointers: which hypothesis each one goes on from, so that a search moves no text but reads it once, at the end."""

import torch
from torch import Tensor


class Trellis:
    """The steps of a search whose hypotheses share their pasts.

    A hypothesis is told by its last position, the row it had in the step of that position, and the token it chose there. Rows
    are those of the whole batch, so that a sentence that is done needs none in the steps that follow.

    Args:
        padding: fills the places behind a hypothesis.
    """

    def __init__(self, padding: int) -> None:
        self.padding = padding
        self.parents: list[Tensor] = []
        self.tokens: list[Tensor] = []
        self.attentions: list[Tensor] = []

    def append(self, parents: Tensor, tokens: Tensor, attention: Tensor | None) -> None:
        """Add a step, and the hypotheses that are the rows of the next one.

        Args:
            parents: `(sentences, hypotheses)`, the row in this step that each goes on from.
            tokens: `(sentences, hypotheses)`, what each chose.
            attention: `(rows, source_time)` of this step, from which they chose.
        """
        self.parents.append(parents)
        self.tokens.append(tokens)
        if attention is not None:
            self.attentions.append(attention)

    def read(self, position: Tensor, parent: Tensor, token: Tensor) -> tuple[Tensor, Tensor | None]:
        """The tokens `(sentences, count, steps)` of hypotheses, and their attention `(sentences, count, steps, source_time)`.

        Args:
            position: `(sentences, count)`, that of the last token; −1 for a hypothesis that does not exist.
            parent: `(sentences, count)`, the row it was chosen in; any for a hypothesis that does not exist.
            token: `(sentences, count)`, the last token itself.
        """
        text, rows = self._walk(position, parent, token)
        if not self.attentions:
            return text, None
        steps = zip(self.attentions, rows, strict=True)
        return text, torch.stack([attention[row] for attention, row in steps], dim=2)

    def last(self) -> tuple[Tensor, Tensor, Tensor]:
        """Position, parent and token of the hypotheses that the last step chose, `(sentences, hypotheses)` each."""
        return torch.full_like(self.tokens[-1], len(self.tokens) - 1), self.parents[-1], self.tokens[-1]

    def history(self) -> Tensor:
        """The tokens of those hypotheses, `(sentences, hypotheses, steps)`."""
        return self._walk(*self.last())[0]

    def _walk(self, position: Tensor, parent: Tensor, token: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Tokens as `read` gives them, and the row in each step; 0 behind the end of a hypothesis."""
        row = parent
        tokens: list[Tensor] = []
        rows: list[Tensor] = []
        for step in reversed(range(len(self.tokens))):
            before = position > step
            child = row * before
            chosen = self.tokens[step].take(child).where(before, self.padding)
            tokens.append(token.where(position == step, chosen))
            row = self.parents[step].take(child).where(before, row)
            rows.append(row * (position >= step))
        return torch.stack(tokens[::-1], dim=-1), rows[::-1]


def in_rows(places: Tensor, hypotheses: int) -> Tensor:
    """The rows of hypotheses told by their places in their sentences, `(sentences, count)`, each of which has so many."""
    return places + torch.arange(len(places), device=places.device)[:, None] * hypotheses
