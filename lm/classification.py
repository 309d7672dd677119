"""Classifier: a recurrent network that reads a text and says which kind of text it is."""

import math
from collections.abc import Sequence
from itertools import compress
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from datamodules.label_batches import ClassificationBatch
from lm.base import OptimizerFactory
from lm.bidirectional import Bidirectional
from lm.dropout import Dropout
from lm.heads import LinearHead
from lm.initialisation import Initialisation, initialise
from lm.label_model import LabelModel
from lm.matching import check_same_vocabulary
from lm.network import NetworkFactory, RecurrentNetwork, RNNOutput
from lm.pooling import Pooling, read_pooled
from lm.prediction import Prediction
from lm.schedule import Schedule


class Classification(NamedTuple):
    """What a text was taken for: the label, and the probability of every label."""

    label: str
    probabilities: dict[str, float]


class Classifier(LabelModel):
    """P(label | text) = softmax(W pool(h_1 … h_T) + b), with h_t from a recurrent network (Howard & Ruder 2018, §3.3).

    Long texts are read by truncated BPTT: window after window with the state carried, and the gradient ends where a window
    begins. The pooled states, and so the gradient, are those of all windows, or of the last few.

    Args:
        vocab_size: entries of the vocabulary.
        label_count: different labels.
        network: makes what reads.
        pooling: the last state, the mean or the maximum of all, or all three side by side.
        pooled_dropout: rate of what is pooled.
        window: tokens that a gradient goes back through at most; null for all of a text.
        gradient_windows: from how many windows, the last ones of the batch, there is a gradient at all; null for every one. The
            others need no memory.
        direction: read texts from the left or from the right; the data has to be read the same way.
        ensemble: checkpoints of other classifiers, of either direction, whose probabilities are averaged with this one's; a
            validation within training is of this model alone.
        initialisation: of all weights, by name (see lm.initialisation).
        optimizer: makes the optimizer from the parameters.
        schedule: the learning-rate schedule; null for a constant rate.

    Raises:
        ValueError: if a window or their number is not positive, or windows cut what reads from both sides.
    """

    def __init__(
        self,
        vocab_size: int,
        label_count: int,
        network: NetworkFactory = RecurrentNetwork,
        pooling: Pooling = "concatenated",
        pooled_dropout: float = 0.0,
        window: int | None = None,
        gradient_windows: int | None = None,
        direction: Literal["left_to_right", "right_to_left"] = "left_to_right",
        ensemble: Sequence[str] = (),
        initialisation: Initialisation = "default",
        optimizer: OptimizerFactory = lambda parameters: torch.optim.Adam(parameters, lr=0.001),
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(label_count, optimizer, schedule)
        for name, value in (("window", window), ("gradient_windows", gradient_windows)):
            if value is not None and value < 1:
                raise ValueError(f"Classifier: {name} counts from 1, or is null, got {value}")
        self.network = network(vocab_size, 0)
        if window is not None and any(isinstance(layer, Bidirectional) for layer in self.network.layers):
            raise ValueError(
                f"Classifier: a window of {window} tokens is all that a layer which reads from both sides would see; leave window"
                " out, or train a model of each direction and name one in the ensemble of the other"
            )
        self.pooled_dropout = Dropout(pooled_dropout)
        self.head = LinearHead(self.network.output_size * (3 if pooling == "concatenated" else 1), label_count)
        initialise(self, initialisation)
        self.pooling: Pooling = pooling
        self.window, self.gradient_windows = window, gradient_windows
        self.direction = direction
        self.ensemble = list(ensemble)
        self.members: list[Classifier] = []

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, RNNOutput]:
        """Tokens `(batch, time)` in reading order, lengths `(batch,)` -> pooled states `(batch, features)`, the last window's."""
        return read_pooled(self.network, tokens, lengths, self.pooling, self.window, self.gradient_windows)

    def layers_in_order(self) -> list[nn.Module]:
        """See SequenceModule: the embedding, each layer, the head."""
        return [self.network.embedding, *self.network.layers, self.head]

    def setup(self, stage: str) -> None:
        """See SequenceModule; looks at the data's direction and loads the others of an ensemble.

        Raises:
            ValueError: if the data is read the other way, or another classifier has other words or labels.
        """
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if (direction := getattr(data, "direction", self.direction)) != self.direction:
            raise ValueError(f"direction: the model reads {self.direction} and its data {direction}; set both the same way")
        self.network.learn_spellings(self.tokenizer)
        self.members = [] if stage == "fit" else self.others()

    # Training and evaluation

    def training_step(self, batch: ClassificationBatch, batch_index: int) -> dict[str, Any]:
        """One batch: its loss over the texts of the whole step of the optimizer, with every loss term."""
        pooled, output = self(batch.tokens, batch.lengths)
        real = (batch.indices >= 0).float()
        scale = self.trainer.world_size * self.trainer.accumulate_grad_batches / batch.normalizer
        loss = self.head.loss(self.pooled_dropout(pooled), batch.labels, real * scale)
        self.train_metrics.update(loss.nll, mask=real)
        total = self.regularized(loss.total, output)
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=1)
        return {"loss": total, "tokens": int(batch.lengths.sum())}

    def log_prob(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """log P of every label, `(batch, labels)`, of texts in this model's reading order; an ensemble averages P."""
        every = [self.head.log_prob(self(tokens, lengths)[0])]
        for member in self.members:
            own_order = tokens if member.direction == self.direction else backwards(tokens, lengths)
            every.append(member.head.log_prob(member(own_order, lengths)[0]))
        return torch.stack(every).logsumexp(dim=0) - math.log(len(every))

    def evaluate(self, batch: ClassificationBatch) -> Tensor:
        """Add a batch to the metrics of an evaluation -> −log P of each label, `(batch,)`."""
        log_prob = self.log_prob(batch.tokens, batch.lengths)
        nll = -log_prob.gather(1, batch.labels[:, None])[:, 0]
        real = batch.indices >= 0
        self.losses.update(nll[real])
        if real.any():
            self.label_metrics.update(log_prob[real].argmax(dim=1), batch.labels[real])
        return nll

    def validation_step(self, batch: ClassificationBatch, batch_index: int) -> Tensor:
        """A batch of the validation texts; what HighestLoss reads."""
        return self.evaluate(batch)

    def test_step(self, batch: ClassificationBatch, batch_index: int) -> Tensor:
        """A batch of the test texts; what HighestLoss reads."""
        return self.evaluate(batch)

    def predict_step(self, batch: ClassificationBatch, batch_index: int) -> Prediction:
        """Each text with its label, the label it is taken for, and the probability of that."""
        best = self.log_prob(batch.tokens, batch.lengths).max(dim=1)
        names = self.label_names()
        told = zip(batch.texts, batch.labels.tolist(), best.indices.tolist(), best.values.exp().tolist(), strict=True)
        rows: list[tuple[str, ...]] = [(text, names[label], names[best], f"{p:.3f}") for text, label, best, p in told]
        real = (batch.indices >= 0).tolist()
        return Prediction(("text", "target", "predicted", "probability"), list(compress(rows, real)))

    # Ensemble and text

    def others(self) -> list["Classifier"]:
        """The others of the ensemble, from their checkpoints.

        Raises:
            ValueError: if one has other words or labels.
        """
        members = []
        with torch.inference_mode(False):  # weights that are made in that mode do not tell when they change
            for path in self.ensemble:
                member = Classifier.load_from_checkpoint(path)
                for name in self.TOKENIZERS:
                    if (own := getattr(self, name)) is not None:
                        check_same_vocabulary(f"ensemble's {name}", getattr(member, name), own)
                members.append(member.to(device=self.device, dtype=next(self.parameters()).dtype).eval())
        return members

    @torch.no_grad()
    def classify(self, texts: str | Sequence[str]) -> list[Classification]:
        """What each text is taken for, as one batch.

        Raises:
            ValueError: if a text has no token, or the model was trained on tensors alone.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        if self.tokenizer is None:
            raise ValueError("tokenizer: this model was trained without one; set model.tokenizer to read text")
        ids = self.tokenizer.encode_batch(texts)
        for number, (text, found) in enumerate(zip(texts, ids, strict=True), start=1):
            if not found:
                raise ValueError(f"classify: text {number}, {text[:40]!r}, has no token to read: give it some text")
        if not texts:
            return []
        if self.ensemble and not self.members:
            self.members = self.others()
        rows = [torch.tensor(found if self.direction == "left_to_right" else found[::-1]) for found in ids]
        lengths = torch.tensor([len(row) for row in rows])
        with self.evaluating():
            probabilities = self.log_prob(pad_sequence(rows, batch_first=True).to(self.device), lengths.to(self.device)).exp()
        names = self.label_names()
        return [Classification(names[int(row.argmax())], dict(zip(names, row.tolist(), strict=True))) for row in probabilities]


def backwards(tokens: Tensor, lengths: Tensor) -> Tensor:
    """`(batch, time)` tokens with those of each row in reverse order, and what is behind them where it was."""
    steps = torch.arange(tokens.shape[1], device=tokens.device)
    source = lengths[:, None] - 1 - steps
    return tokens.gather(1, source.where(source >= 0, steps))
