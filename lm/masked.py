"""MaskedModel: a network that reads a text from both sides and tells the tokens that are hidden in it."""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from datamodules.streams import Window
from datamodules.tokenizers import MASK, Tokenizer
from lm.base import OptimizerFactory, SequenceModule
from lm.heads import HeadLoss, LinearHead
from lm.initialisation import Initialisation, initialise
from lm.metrics import TokenMetrics
from lm.module import HeadFactory
from lm.network import NetworkFactory, RecurrentNetwork, RNNOutput
from lm.prediction import Prediction
from lm.schedule import Schedule

BIDIRECTIONAL_LSTM: NetworkFactory = partial(RecurrentNetwork, bidirectional=True)


class Filling(NamedTuple):
    """A text whose masked tokens are told.

    Attributes:
        text: with the most probable token in the place of each.
        choices: of each masked token the most probable ones, with their probabilities, the best first.
    """

    text: str
    choices: list[list[tuple[str, float]]]


class MaskedModel(SequenceModule):
    """P(x_t | the tokens before and after it), for tokens t that are hidden from the network (a cloze, Taylor 1953).

    What stands before x_t is in the state of one direction at t, what stands after it in that of the other; neither has seen x_t,
    for it reads the mask in its place. Every window is read from zeros, and the loss is at the masked tokens alone.

    Args:
        vocab_size: entries of the vocabulary.
        network: makes what reads; one of a single direction tells the hidden tokens from those before them alone.
        head: makes the output layer from its input size and the vocabulary's.
        initialisation: of all weights, by name (see lm.initialisation).
        optimizer: makes the optimizer from the parameters.
        schedule: the learning-rate schedule; null for a constant rate.
    """

    tokenizer: Tokenizer | None

    def __init__(
        self,
        vocab_size: int,
        network: NetworkFactory = BIDIRECTIONAL_LSTM,
        head: HeadFactory = LinearHead,
        initialisation: Initialisation = "default",
        optimizer: OptimizerFactory = lambda parameters: torch.optim.Adam(parameters, lr=0.001),
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(optimizer, schedule)
        self.network = network(vocab_size, 0)
        self.head = head(self.network.output_size, vocab_size)
        initialise(self, initialisation)
        self.train_metrics = TokenMetrics()
        self.evaluation_metrics = TokenMetrics()

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> RNNOutput:
        """Tokens `(batch, time)`, some of them masks -> what the network says at each."""
        output: RNNOutput = self.network(tokens, lengths=lengths)
        return output

    def layers_in_order(self) -> list[nn.Module]:
        """See SequenceModule: the embedding, each layer, the head."""
        return [self.network.embedding, *self.network.layers, self.head]

    def setup(self, stage: str) -> None:
        """See SequenceModule.

        Raises:
            TypeError: if the windows of the data have nothing hidden in them, which this model would learn to copy.
        """
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if data is not None and not getattr(data, "hidden", False):
            raise TypeError(
                f"MaskedModel: it tells tokens that are hidden, and {type(data).__name__} hides none: give it"
                " datamodules.masking.MaskedData with hidden true"
            )
        self.network.learn_spellings(self.tokenizer)

    # Training and evaluation

    def window_loss(self, window: Window) -> tuple[RNNOutput, HeadLoss]:
        """The mean loss over the masked tokens of a window."""
        output = self(window.tokens)
        masked = hidden_places(window)
        count = max(1, int(masked.sum()))
        targets = window.targets[masked]
        return output, self.head.loss(output.hidden[masked], targets, torch.full_like(targets, 1 / count, dtype=torch.float32))

    def training_step(self, batch: Window, batch_index: int) -> dict[str, Any]:
        """One window: its loss with every loss term, and how many tokens it read."""
        output, loss = self.window_loss(batch)
        self.train_metrics.update(loss.nll)
        total = self.regularized(loss.total, output)
        nll = loss.nll.sum() / max(1, len(loss.nll))
        self.log_dict({"train/loss": total.detach(), "train/ppl": nll.exp()}, prog_bar=True, batch_size=1)
        return {"loss": total, "tokens": batch.tokens.numel()}

    def on_train_epoch_end(self) -> None:
        """Log the perplexity of the epoch, over all of its masked tokens."""
        self.log("train/ppl_epoch", self.train_metrics.compute()["ppl"], sync_dist=True)
        self.train_metrics.reset()

    def validation_step(self, batch: Window, batch_index: int) -> None:
        """One window of the validation text."""
        self.evaluate_window(batch)

    def test_step(self, batch: Window, batch_index: int) -> None:
        """One window of the test text."""
        self.evaluate_window(batch)

    def evaluate_window(self, batch: Window) -> None:
        """Add a window to the metrics of an evaluation."""
        _, loss = self.window_loss(batch)
        self.evaluation_metrics.update(loss.nll, loss.correct)

    def on_validation_epoch_end(self) -> None:
        """Log `val/loss`, `val/ppl` and `val/accuracy` of the masked tokens."""
        self.log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Log `test/loss`, `test/ppl` and `test/accuracy` of the masked tokens."""
        self.log_evaluation("test")

    def log_evaluation(self, stage: str) -> None:
        """Log the metrics of an evaluation under its name."""
        values = self.evaluation_metrics.compute()
        self.evaluation_metrics.reset()
        for name in ("loss", "ppl", "accuracy"):
            self.log(f"{stage}/{name}", values[name], prog_bar=name == "ppl", sync_dist=True)

    def predict_step(self, batch: Window, batch_index: int) -> Prediction:
        """Each masked token beside the most probable one; ids where there is no tokenizer."""
        masked = hidden_places(batch)
        told = self.head.log_prob(self(batch.tokens).hidden[masked]).argmax(dim=-1)
        ids = (batch.targets[masked].tolist(), told.tolist())
        columns = [self.tokenizer.tokens(found) if self.tokenizer else list(map(str, found)) for found in ids]
        return Prediction(("target", "predicted"), list(zip(*columns, strict=True)))

    # Text

    @torch.no_grad()
    def fill(self, text: str, choices: int = 5) -> Filling:
        """Tell the masked tokens of a line, each from all that is not masked.

        Args:
            text: a line in which `[MASK]` or `<mask>` stands for each token that is to be told.
            choices: how many of the most probable tokens to give for each.

        Raises:
            ValueError: if nothing is masked, or the vocabulary has no such token.
        """
        tokenizer = self.tokenizer
        if tokenizer is None or tokenizer.mask is None:
            raise ValueError("fill: the vocabulary of this model has no token for what is masked")
        ids = encoded(text, tokenizer)
        if tokenizer.mask not in ids:
            raise ValueError(f"fill: there is nothing to fill in {text!r}: write {MASK[1]} where a token is to be told")
        ends = [] if tokenizer.end is None else [tokenizer.end]
        never = [tokenizer.unknown, tokenizer.padding, tokenizer.mask, *ends]
        line = torch.tensor([ends + ids + ends], device=self.device)
        with self.evaluating():
            log_prob = self.head.log_prob(self(line).hidden[line == tokenizer.mask])
        log_prob[:, [token for token in never if token is not None]] = -torch.inf
        best = log_prob.topk(min(choices, log_prob.shape[1]))
        told = iter(best.indices[:, 0].tolist())
        filled = [next(told) if token == tokenizer.mask else token for token in ids]
        return Filling(
            tokenizer.decode(filled),
            [
                list(zip(tokenizer.tokens(tokens), values, strict=True))
                for tokens, values in zip(best.indices.tolist(), best.values.exp().tolist(), strict=True)
            ],
        )


def hidden_places(window: Window) -> Tensor:
    """Which tokens of a window are to be told, `(lanes, time)`."""
    return torch.ones_like(window.targets, dtype=torch.bool) if window.mask is None else window.mask.bool()


def encoded(text: str, tokenizer: Tokenizer) -> list[int]:
    """Ids of a text, the mask's where it says `[MASK]` or `<mask>`, which a tokenizer would spell out."""
    for name in MASK[1:]:
        text = text.replace(name, MASK[0])
    ids: list[int] = []
    for number, part in enumerate(text.split(MASK[0])):
        ids += [tokenizer.mask or 0] * (number > 0) + tokenizer.encode(part)
    return ids
