"""Back-pointers: which hypothesis each one goes on from, so that a search moves no text but reads it once, at the end."""

import torch
from torch import Tensor


class Trellis:
    """The steps of a search whose hypotheses share their pasts.

    A hypothesis is told by its last position, the slot it had among those that went into the step of that position, and the
    token it chose there.

    Args:
        padding: fills the places behind a hypothesis.
    """

    def __init__(self, padding: int) -> None:
        self.padding = padding
        self.parents: list[Tensor] = []
        self.tokens: list[Tensor] = []
        self.attentions: list[Tensor] = []

    def append(self, parents: Tensor, tokens: Tensor, attention: Tensor | None) -> None:
        """Add a step.

        Args:
            parents: `(sentences, hypotheses)`, the slot each goes on from; there are never fewer than in the step before.
            tokens: `(sentences, hypotheses)`, what each chose.
            attention: `(sentences, hypotheses before, source_time)`, from which it chose.
        """
        self.parents.append(parents)
        self.tokens.append(tokens)
        if attention is not None:
            self.attentions.append(attention)

    def select(self, sentences: Tensor) -> "Trellis":
        """The steps of these sentences alone, in this order."""
        chosen = Trellis(self.padding)
        for name in ("parents", "tokens", "attentions"):
            setattr(chosen, name, [part.index_select(0, sentences) for part in getattr(self, name)])
        return chosen

    def read(self, position: Tensor, parent: Tensor, token: Tensor) -> tuple[Tensor, Tensor | None]:
        """The tokens `(sentences, count, steps)` of hypotheses, and their attention `(sentences, count, steps, source_time)`.

        Args:
            position: `(sentences, count)`, that of the last token; −1 for a hypothesis that does not exist.
            parent: `(sentences, count)`, the slot it was chosen in; 0 for a hypothesis that does not exist.
            token: `(sentences, count)`, the last token itself.
        """
        text, slots = self._walk(position, parent, token)
        if not self.attentions:
            return text, None
        sentences = torch.arange(len(text), device=text.device)[:, None]
        steps = zip(self.attentions, slots, strict=True)
        return text, torch.stack([attention[sentences, slot] for attention, slot in steps], dim=2)

    def last(self) -> tuple[Tensor, Tensor, Tensor]:
        """Position, parent and token of the hypotheses that the last step chose, `(sentences, hypotheses)` each."""
        return torch.full_like(self.tokens[-1], len(self.tokens) - 1), self.parents[-1], self.tokens[-1]

    def history(self) -> Tensor:
        """The tokens of those hypotheses, `(sentences, hypotheses, steps)`."""
        return self._walk(*self.last())[0]

    def _walk(self, position: Tensor, parent: Tensor, token: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Tokens as `read` gives them, and the slots that went into each step."""
        slot = parent
        tokens: list[Tensor] = []
        slots: list[Tensor] = []
        for step in reversed(range(len(self.tokens))):
            before = position > step
            chosen = self.tokens[step].gather(1, slot).where(before, self.padding)
            tokens.append(token.where(position == step, chosen))
            slot = self.parents[step].gather(1, slot).where(before, slot)
            slots.append(slot)
        return torch.stack(tokens[::-1], dim=-1), slots[::-1]
