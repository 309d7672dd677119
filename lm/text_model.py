"""TextModel: what every model that predicts a text token by token can do with it: be evaluated, write and weigh."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from datamodules.streams import Window
from datamodules.tokenizers import Tokenizer
from lm.base import OptimizerFactory, SequenceModule
from lm.metrics import TokenMetrics
from lm.network import NetworkState
from lm.prediction import Prediction
from lm.sampling import Sampling, generate
from lm.schedule import Schedule
from lm.text_score import TextScore

Direction = Literal["left_to_right", "right_to_left"]


class TextModel(SequenceModule, ABC):
    """A model of text that predicts each token from those before it, by whatever it has learnt from windows of a stream.

    Args:
        vocab_size: entries of the vocabulary.
        direction: read texts from the left or from the right; the data has to be read the same way.
        optimizer: makes the optimizer from the parameters; None where no gradient is followed.
        schedule: the learning-rate schedule; None for a constant rate.
    """

    tokenizer: Tokenizer | None

    def __init__(
        self, vocab_size: int, direction: Direction, optimizer: OptimizerFactory | None, schedule: Schedule | None = None
    ) -> None:
        super().__init__(optimizer, schedule)
        self.vocab_size = vocab_size
        self.direction = direction
        self.evaluation_metrics = TokenMetrics()
        self.units: Tensor | None = None

    @abstractmethod
    def next_token(self, tokens: Tensor, state: NetworkState | None) -> tuple[Tensor, NetworkState]:
        """Tokens `(rows, time)` and the state before them -> log-probabilities of the next `(rows, vocab)`, the state after."""

    @abstractmethod
    def token_nll(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """−log p of each target `(rows, time)` behind tokens `(rows, time)` that begin a text, in the same shape."""

    @abstractmethod
    def evaluate_window(self, batch: Window, stage: str, loader: int) -> None:
        """Add a window to the metrics of an evaluation."""

    # Evaluation

    def setup(self, stage: str) -> None:
        """Check that the data is read the way this model reads, and learn how long its tokens are.

        Raises:
            ValueError: if the data's direction or vocabulary does not fit.
        """
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if (direction := getattr(data, "direction", self.direction)) != self.direction:
            raise ValueError(f"direction: the model reads {self.direction} and its data {direction}; set both the same way")
        lengths = self.tokenizer.token_lengths() if self.tokenizer else None
        self.units = None if lengths is None else torch.tensor(lengths, dtype=torch.float32)

    def units_of(self, targets: Tensor) -> Tensor | None:
        """Characters or bytes that each target stands for; None where tokens do not add up to the text."""
        return None if self.units is None else self.units.to(targets.device)[targets]

    def log_evaluation(self, stage: str) -> None:
        """Log the metrics of an evaluation under its name, and let go of what it read."""
        values = dict(self.evaluation_metrics.compute())
        self.evaluation_metrics.reset()
        self.reset_state(stage)
        bits, accuracy = values.pop("bits"), values.pop("accuracy")
        if not accuracy.isnan():
            values["accuracy"] = accuracy
        if self.units is not None and self.tokenizer is not None:
            values[f"bits_per_{self.tokenizer.unit}"] = bits
        for name, value in values.items():
            self.log(f"{stage}/{name}", value, prog_bar=name == "ppl", sync_dist=True)

    def validation_step(self, batch: Window, batch_index: int, dataloader_idx: int = 0) -> None:
        """One window of the validation text."""
        self.evaluate_window(batch, "val", dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log `val/loss`, `val/ppl`, and where they are known `val/accuracy` and bits per unit."""
        self.log_evaluation("val")

    def test_step(self, batch: Window, batch_index: int, dataloader_idx: int = 0) -> None:
        """One window of the test text."""
        self.evaluate_window(batch, "test", dataloader_idx)

    def on_test_epoch_end(self) -> None:
        """Log `test/loss`, `test/ppl`, and where they are known `test/accuracy` and bits per unit."""
        self.log_evaluation("test")

    def beside(self, targets: Tensor, predicted: Tensor, mask: Tensor | None) -> Prediction:
        """Each true token beside the predicted one, row by row without padding; ids where there is no tokenizer."""
        real = torch.ones_like(targets, dtype=torch.bool) if mask is None else mask.bool()
        ids = (targets[real].tolist(), predicted[real].tolist())
        columns = [self.tokenizer.tokens(found) if self.tokenizer else list(map(str, found)) for found in ids]
        return Prediction(("target", "predicted"), list(zip(*columns, strict=True)))

    # Text

    def text_tokenizer(self) -> Tokenizer:
        """The tokenizer of the texts this model was trained on.

        Raises:
            ValueError: if it was trained on tensors alone.
        """
        if self.tokenizer is None:
            raise ValueError("tokenizer: this model was trained without one; set model.tokenizer to read and write text")
        return self.tokenizer

    def in_order(self, ids: Sequence[int]) -> list[int]:
        """Ids in the order in which this model reads them; applied twice, as they were."""
        return list(ids) if self.direction == "left_to_right" else list(reversed(ids))

    @torch.no_grad()
    def generate(
        self, prompts: str | Sequence[str], length: int = 100, sampling: Sampling | None = None, *, allow_unknown: bool = False
    ) -> list[str]:
        """Continue texts (to the left, if this model reads from the right).

        Args:
            prompts: one or more beginnings; an empty one is the beginning of a line. Words not in the vocabulary are
                read as the unknown token.
            length: tokens to add at most; a text ends before, at the token that ends a line.
            sampling: how tokens are chosen; None for sampling at temperature 1.
            allow_unknown: let the unknown token be chosen.

        Returns:
            each prompt with its continuation.

        Raises:
            ValueError: if a prompt is empty and the vocabulary has no token that begins a line.
        """
        tokenizer = self.text_tokenizer()
        start = self.start_token()
        prefixes = [self.in_order(tokenizer.encode(prompt)) for prompt in ([prompts] if isinstance(prompts, str) else prompts)]
        if start is None and not all(prefixes):
            raise ValueError(
                "prompt: it holds no token of the vocabulary, and this vocabulary has none that begins a line; give some text"
            )
        contexts = [[start, *prefix] if start is not None else prefix for prefix in prefixes]
        never = {tokenizer.padding, tokenizer.beginning} | (set() if allow_unknown else {tokenizer.unknown})
        with self.evaluating():
            added = generate(
                self.next_token,
                contexts,
                length,
                sampling or Sampling(),
                end=tokenizer.end,
                banned=sorted(token for token in never if token is not None and token != tokenizer.end),
                device=self.device,
            )
        return [tokenizer.decode(self.in_order(prefix + new)) for prefix, new in zip(prefixes, added, strict=True)]

    def start_token(self) -> int | None:
        """What stands before the first token of a line: `<bos>`, or the `<eos>` of the line before."""
        tokenizer = self.text_tokenizer()
        return tokenizer.beginning if tokenizer.beginning is not None else tokenizer.end

    @torch.no_grad()
    def score(self, texts: str | Sequence[str]) -> list[TextScore]:
        """The probability of each text as one line, from its beginning to its end.

        Where the vocabulary has no token that begins a line, the first token has nothing to be predicted from, and the
        score is of the others.

        Args:
            texts: one or more lines; those of a call are padded to the longest and scored together.
        """
        texts = [texts] if isinstance(texts, str) else texts
        if not texts:
            return []
        tokenizer = self.text_tokenizer()
        start, end = self.start_token(), tokenizer.end
        lines = [self.in_order(tokenizer.encode(text)) for text in texts]
        rows = [torch.tensor([token for token in (start, *line, end) if token is not None], dtype=torch.long) for line in lines]
        scores = []
        padded = pad_sequence(rows, batch_first=True).to(self.device)
        if padded.shape[1] > 1:
            with self.evaluating():
                nll = self.token_nll(padded[:, :-1], padded[:, 1:])
        else:
            nll = padded.new_zeros(padded.shape[0], 0, dtype=torch.float32)
        for row, values in zip(rows, nll.cpu(), strict=True):
            scores.append(TextScore(tokenizer.tokens(row[1:].tolist()), values[: max(0, len(row) - 1)]))
        return scores
