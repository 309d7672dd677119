"""LanguageModel: a recurrent network that predicts each token from those before it."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from datamodules.streams import Window
from lm.base import OptimizerFactory
from lm.bidirectional import Bidirectional
from lm.evaluation import Evaluation, Reader, StaticEvaluation, Text
from lm.frequency_clusters import check_order_of_frequency
from lm.heads import Head, HeadLoss, LinearHead
from lm.initialisation import Initialisation, initialise
from lm.layers import LSTM
from lm.metrics import TokenMetrics
from lm.network import EmbeddingFactory, LayerFactories, NetworkState, RecurrentNetwork, RNNOutput
from lm.prediction import Prediction
from lm.schedule import Schedule
from lm.text_model import Direction, TextModel

HeadFactory = Callable[[int, int], Head]


class LanguageModel(TextModel):
    """A recurrent language model, trained on windows of a stream.

    Args:
        vocab_size: entries of the vocabulary.
        embedding_size: features of a token's embedding; null for one-hot input.
        layer_sizes: hidden features of each layer, from the input up.
        cell: makes each layer: `lm.layers.LSTM`, `lm.cells.GRUCell`, or a class of your own; or several, one for each layer.
        head: makes the output layer from its input size and the vocabulary's.
        embedding: makes the embedding: `lm.adaptive_input.AdaptiveEmbedding`, `lm.character_cnn.CharacterCNN`; null for a table.
        embedding_dropout: rate of whole words: in a forward pass every occurrence of one is zeroed, or none.
        input_dropout: rate after the embedding.
        layer_dropout: rate between layers.
        output_dropout: rate after the last layer.
        locked_dropout: one mask a sequence (variational dropout), not one a step.
        residual: add each layer's input to its output where the sizes are equal.
        initialisation: of all weights, by name (see lm.initialisation).
        loss_at: predict after every position of a window, or after its last only.
        carry: give each window the state after the one before, detached (truncated BPTT); else every window starts from zeros.
        direction: read texts from the left or from the right; the data has to be read the same way.
        evaluation: how `test` and `validate` predict: null for the model as it was trained, `lm.neural_cache.NeuralCache`,
            `lm.dynamic_evaluation.DynamicEvaluation` or `lm.ensemble.Ensemble`. A validation within training is of the model as
            it is.
        optimizer: makes the optimizer from the parameters.
        schedule: the learning-rate schedule; null for a constant rate.

    Raises:
        ValueError: if a layer looks at what it is to predict.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int | None = 200,
        layer_sizes: Sequence[int] = (200, 200),
        cell: LayerFactories = LSTM,
        head: HeadFactory = LinearHead,
        embedding: EmbeddingFactory | None = None,
        embedding_dropout: float = 0.0,
        input_dropout: float = 0.0,
        layer_dropout: float = 0.0,
        output_dropout: float = 0.0,
        locked_dropout: bool = True,
        residual: bool = False,
        initialisation: Initialisation = "default",
        loss_at: Literal["every", "last"] = "every",
        carry: bool = True,
        direction: Direction = "left_to_right",
        evaluation: Evaluation | None = None,
        optimizer: OptimizerFactory = lambda parameters: torch.optim.Adam(parameters, lr=0.001),
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(vocab_size, direction, optimizer, schedule)
        self.network = RecurrentNetwork(
            vocab_size,
            embedding_size=embedding_size,
            embedding=embedding,
            layer_sizes=layer_sizes,
            cell=cell,
            embedding_dropout=embedding_dropout,
            input_dropout=input_dropout,
            layer_dropout=layer_dropout,
            output_dropout=output_dropout,
            locked_dropout=locked_dropout,
            residual=residual,
        )
        if any(isinstance(layer, Bidirectional) for layer in self.network.layers):
            raise ValueError("cell: a language model predicts what a bidirectional layer has already read; use one direction")
        self.head = head(self.network.output_size, vocab_size)
        initialise(self, initialisation)
        self.loss_at = loss_at
        self.carry = carry
        self.evaluation = evaluation
        self.readers: dict[tuple[str, int], Reader] = {}
        self.train_metrics = TokenMetrics()

    def forward(self, tokens: Tensor, state: NetworkState | None = None) -> RNNOutput:
        """Tokens `(batch, time)` and the state before them -> hidden states and the state after."""
        output: RNNOutput = self.network(tokens, state)
        return output

    def layers_in_order(self) -> list[nn.Module]:
        """See SequenceModule: the embedding, each layer, the head."""
        return [self.network.embedding, *self.network.layers, self.head]

    # Training and evaluation

    def setup(self, stage: str) -> None:
        """See TextModel; show the network how words are spelled.

        Raises:
            ValueError: if the data's direction, order of windows or vocabulary does not fit.
        """
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and self.carry and not getattr(data, "contiguous", True):
            raise ValueError(
                "carry: a state cannot be carried over windows drawn at random; set model.carry false, or stream in order"
            )
        if stage == "fit" and (text := getattr(data, "tokens", None)):
            check_order_of_frequency(self, text("train"))
        self.network.learn_spellings(self.tokenizer)

    def window_loss(self, batch: Window, stage: str, loader: int = 0) -> tuple[RNNOutput, HeadLoss]:
        """Read a window, keep the state after it, and take the mean loss over its targets."""
        output = self(batch.tokens, self.carried_state(stage, loader) if self.carry else None)
        if self.carry and output.state is not None:
            self.carry_state(output.state, stage, loader)
        part = self.predicted(batch)
        count = part.targets.numel() if part.mask is None else part.mask.sum().clamp(min=1)
        weights = torch.ones_like(part.targets, dtype=torch.float32) if part.mask is None else part.mask
        return output, self.head.loss(output.hidden[:, -part.targets.shape[1] :], part.targets, weights / count)

    def predicted(self, batch: Window) -> Window:
        """What is predicted of a window: its last step, or all of it."""
        if self.loss_at == "every":
            return batch
        tokens, targets, mask = batch
        return Window(tokens[:, -1:], targets[:, -1:], None if mask is None else mask[:, -1:])

    def training_step(self, batch: Window, batch_index: int) -> dict[str, Any]:
        """One window: its loss with every loss term, and how many tokens it read."""
        output, loss = self.window_loss(batch, "train")
        mask = self.predicted(batch).mask
        self.train_metrics.update(loss.nll, mask=mask)
        total = self.regularized(loss.total, output)
        task = loss.nll.mean() if mask is None else (loss.nll * mask).sum() / mask.sum().clamp(min=1)
        self.log_dict({"train/loss": total.detach(), "train/ppl": task.exp()}, prog_bar=True, batch_size=1)
        return {"loss": total, "tokens": batch.tokens.numel()}

    def on_train_epoch_end(self) -> None:
        """Log the perplexity of the epoch, over all of its tokens."""
        self.log("train/ppl_epoch", self.train_metrics.compute()["ppl"], sync_dist=True)
        self.train_metrics.reset()

    def reset_state(self, stage: str) -> None:
        """See SequenceModule; what has been read of texts is forgotten too."""
        super().reset_state(stage)
        self.readers = {key: reader for key, reader in self.readers.items() if key[0] != stage}

    def reader(self, stage: str, loader: int) -> Reader:
        """What reads a text of an evaluation, from its first window to its last."""
        if (stage, loader) not in self.readers:
            within_training = self.trainer.state.fn == TrainerFn.FITTING
            evaluation = StaticEvaluation() if within_training or self.evaluation is None else self.evaluation
            loaders: Any = self.trainer.val_dataloaders if stage == "val" else self.trainer.test_dataloaders
            windows = loaders[loader] if isinstance(loaders, list | tuple) else loaders
            self.readers[stage, loader] = evaluation.begin(self, Text(stage, loader, windows))
        return self.readers[stage, loader]

    def evaluate_window(self, batch: Window, stage: str, loader: int) -> None:
        """Add a window to the metrics of an evaluation."""
        reading = self.reader(stage, loader)(batch)
        part = self.predicted(batch)
        self.evaluation_metrics.update(reading.nll, reading.correct, part.mask, self.units_of(part.targets))

    def predict_step(self, batch: Window, batch_index: int, dataloader_idx: int = 0) -> Prediction:
        """The true token after each position beside the most probable one, lane by lane; ids where there is no tokenizer."""
        output = self(batch.tokens, self.carried_state("predict", dataloader_idx) if self.carry else None)
        if self.carry and output.state is not None:
            self.carry_state(output.state, "predict", dataloader_idx)
        part = self.predicted(batch)
        hidden = output.hidden[:, -part.targets.shape[1] :]
        predicted = torch.stack([self.head.log_prob(step).argmax(dim=-1) for step in hidden.unbind(dim=1)], dim=1)
        return self.beside(part.targets, predicted, part.mask)

    # Text

    def next_token(self, tokens: Tensor, state: NetworkState | None) -> tuple[Tensor, NetworkState]:
        """See TextModel."""
        output = self(tokens, state)
        return self.head.log_prob(output.hidden[:, -1]), output.state

    def token_nll(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """See TextModel."""
        return self.head.loss(self(tokens).hidden, targets, None).nll
