"""NGramModel: each token from the few before it, by counting."""

from typing import Any

import torch
from torch import Tensor

from datamodules.streams import Window
from lm.network import NetworkState
from lm.ngram_counts import ABSENT, Level, NGramCounts, delayed
from lm.prediction import Prediction
from lm.smoothing import Interpolation, KneserNey, Smoothing
from lm.text_model import Direction, TextModel

PROBABILITIES_AT_ONCE = 2**23


class NGramModel(TextModel):
    """An n-gram model: P(x_t | x_{t−n+1}, ..., x_{t−1}) from how often n-grams were seen, smoothed.

    It counts the targets of a stream of windows, each with the tokens before it, and follows the text from window to window. An
    epoch counts anew, so that one is enough. There is no gradient: a window that is counted is what Lightning takes for a step of
    the optimizer. A checkpoint holds the counts alone, which can be read again under another smoothing.

    Args:
        vocab_size: entries of the vocabulary.
        order: n, so that a token is predicted from n − 1 others.
        smoothing: makes probabilities from counts: `lm.smoothing.KneserNey`, `Laplace` or `RelativeFrequency`.
        direction: read texts from the left or from the right; the data has to be read the same way.

    Raises:
        ValueError: if the order is no count, or the smoothing is for another one.
    """

    keys_1: Tensor

    def __init__(
        self,
        vocab_size: int,
        order: int = 3,
        smoothing: Smoothing = KneserNey(),  # noqa: B008 - it is frozen
        direction: Direction = "left_to_right",
    ) -> None:
        super().__init__(vocab_size, direction, optimizer=None)
        if order < 1:
            raise ValueError(f"order: an n-gram has at least 1 token, got {order}")
        smoothing.check(order)
        self.automatic_optimization = False
        self.order = order
        self.smoothing = smoothing
        self.fitted: list[Interpolation] | None = None
        nothing = [torch.arange(vocab_size), torch.zeros(vocab_size, dtype=torch.long)]
        for name in self.names():
            self.register_buffer(name, nothing.pop(0) if nothing else torch.zeros(0, dtype=torch.long))

    # Counts

    def names(self) -> list[str]:
        """The buffers that hold the counts, two for each length."""
        return [f"{part}_{length}" for length in range(1, self.order + 1) for part in Level._fields]

    @property
    def counts(self) -> NGramCounts:
        """The n-grams of the text so far."""
        held = [getattr(self, name) for name in self.names()]
        return NGramCounts(self.vocab_size, [Level(*pair) for pair in zip(held[::2], held[1::2], strict=True)])

    @counts.setter
    def counts(self, counts: NGramCounts) -> None:
        for name, part in zip(self.names(), [part for level in counts.levels for part in level], strict=True):
            setattr(self, name, part)
        self.fitted = None

    @property
    def interpolations(self) -> list[Interpolation]:
        """The probabilities of every order, made when they are first asked for."""
        if self.fitted is None or self.fitted[0].share.device != self.keys_1.device:
            self.fitted = self.smoothing.orders(self.counts)
        return self.fitted

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See SequenceModule; make room for as many n-grams as there are."""
        for name in self.names():
            if (saved := checkpoint["state_dict"].get(name)) is not None:
                setattr(self, name, torch.empty_like(saved, device=self.device))
        self.fitted = None
        super().on_load_checkpoint(checkpoint)

    # Training

    def setup(self, stage: str) -> None:
        """See TextModel.

        Raises:
            ValueError: if windows do not continue one another, the text is shorter than an n-gram, or several processes count.
        """
        super().setup(stage)
        if stage != "fit":
            return
        data = getattr(self.trainer, "datamodule", None)
        if not getattr(data, "contiguous", True):
            raise ValueError("n-grams: they go on from window to window, and these are drawn at random; stream in order")
        if (text := getattr(data, "tokens", None)) and (length := len(text("train"))) < self.order:
            raise ValueError(
                f"order: there is no n-gram of {self.order} tokens in a training text of {length}; set model.order lower"
            )
        if self.trainer.world_size > 1:
            raise ValueError(f"n-grams: one process counts them, and these are {self.trainer.world_size}; set trainer.devices 1")

    def on_train_epoch_start(self) -> None:
        """Count anew."""
        self.reset_state("train")
        self.counts = NGramCounts.of(self.keys_1.new_zeros(1, 0), 0, self.order, self.vocab_size)

    def training_step(self, batch: Window, batch_index: int) -> dict[str, Any]:
        """Add the n-grams that end at the targets of a window."""
        text = self.with_past(batch, "train")
        self.counts = self.counts + NGramCounts.of(text, batch.targets.shape[1], self.order, self.vocab_size)
        self.optimizers().step()  # type: ignore[union-attr]  # of nothing: Lightning and its callbacks count steps by it
        return {"tokens": batch.tokens.numel()}

    def with_past(self, batch: Window, stage: str, loader: int = 0) -> Tensor:
        """A window behind the n − 1 tokens before it, `(lanes, n + time)`, ABSENT at either end; keep its own last ones."""
        state = self.carried_state(stage, loader)
        past = self.no_past(batch.tokens) if state is None else state[0][0][0].long()
        read = torch.cat([past, batch.tokens], dim=1)
        self.carry_state(self.state_after(read), stage, loader)
        text = torch.cat([read, batch.targets[:, -1:]], dim=1)
        if batch.mask is not None:
            text[:, self.order :].masked_fill_(batch.mask == 0, ABSENT)
        return text

    def no_past(self, tokens: Tensor) -> Tensor:
        """What is before the first token of rows: nothing, `(rows, n − 1)`."""
        return torch.full_like(tokens[:, :1], ABSENT).expand(-1, self.order - 1)

    def state_after(self, read: Tensor) -> NetworkState:
        """The last n − 1 of the tokens read, in the form of a network's state."""
        return ((read[None, :, read.shape[1] - self.order + 1 :],),)

    # Probabilities

    def single(self) -> Tensor:
        """P of each token after none, `(vocab,)`."""
        share, weight = self.interpolations[0]
        return share[:-1] + weight[0] / self.vocab_size

    def probabilities(self, text: Tensor) -> Tensor:
        """P of each token of a text `(rows, time)` after those before it, in the same shape; anything where it is ABSENT."""
        found = self.counts.places(text)
        probability = self.single()[text]
        for length, (share, weight) in enumerate(self.interpolations[1:], start=2):
            probability = torch.addcmul(share[found[length]], weight[delayed(found[length - 1])], probability)
        return probability

    def distribution(self, contexts: Tensor) -> Tensor:
        """P of every token after contexts `(rows, n − 1)`, `(rows, vocab)`."""
        counts, rows = self.counts, torch.arange(len(contexts), device=contexts.device)
        probability, places = self.single().repeat(len(contexts), 1), counts.places(contexts)
        for length, (share, weight) in enumerate(self.interpolations[1:], start=2):
            context = places[length - 1][:, -1]
            probability *= weight[context][:, None]
            first, end = torch.searchsorted(counts.levels[length - 1].keys, torch.stack([context, context + 1]) * self.vocab_size)
            seen = torch.where(context >= 0, end - first, 0)
            row = rows.repeat_interleave(seen)
            n_gram = torch.arange(len(row), device=rows.device) + (first - seen.cumsum(0) + seen)[row]
            probability[row, counts.last_tokens(length)[n_gram]] += share[n_gram]
        return probability

    def evaluate_window(self, batch: Window, stage: str, loader: int) -> None:
        """See TextModel."""
        nll = -self.probabilities(self.with_past(batch, stage, loader))[:, self.order :].log()
        nll = nll if batch.mask is None else nll.masked_fill(batch.mask == 0, 0.0)  # infinity times a mask of 0 is nan
        self.evaluation_metrics.update(nll, None, batch.mask, self.units_of(batch.targets))

    def predict_step(self, batch: Window, batch_index: int, dataloader_idx: int = 0) -> Prediction:
        """The true token after each position beside the most probable one, lane by lane; ids where there is no tokenizer."""
        text = self.with_past(batch, "predict", dataloader_idx)
        contexts = text[:, 1:-1].unfold(1, self.order - 1, 1) if self.order > 1 else text[:, :-1, None][..., :0]
        rows = max(1, PROBABILITIES_AT_ONCE // self.vocab_size)
        predicted = torch.cat([self.distribution(part).argmax(dim=-1) for part in torch.split(contexts.flatten(0, 1), rows)])
        return self.beside(batch.targets, predicted.view_as(batch.targets), batch.mask)

    def next_token(self, tokens: Tensor, state: NetworkState | None) -> tuple[Tensor, NetworkState]:
        """See TextModel; what is impossible is almost so, for among impossible tokens one has to be chosen."""
        read = torch.cat([self.no_past(tokens) if state is None else state[0][0][0], tokens], dim=1)
        after = self.state_after(read)
        probability = self.distribution(after[0][0][0])
        return probability.clamp(min=torch.finfo(torch.float32).tiny).log(), after

    def token_nll(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """See TextModel."""
        text = torch.cat([self.no_past(tokens), tokens, targets[:, -1:]], dim=1)
        return -self.probabilities(text)[:, self.order :].log()
