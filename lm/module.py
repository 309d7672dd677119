"""LanguageModel: a recurrent network that predicts each token from those before it."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from datamodules.streams import Window
from datamodules.tokenizers import Tokenizer
from lm.base import OptimizerFactory, SequenceModule
from lm.evaluation import Evaluation, Reader, StaticEvaluation, Text
from lm.frequency_clusters import check_order_of_frequency
from lm.heads import Head, HeadLoss, LinearHead
from lm.initialisation import Initialisation, initialise
from lm.layers import LSTM, Bidirectional
from lm.metrics import TokenMetrics
from lm.network import EmbeddingFactory, LayerFactories, NetworkState, RecurrentNetwork, RNNOutput
from lm.prediction import Prediction
from lm.sampling import Sampling, generate
from lm.schedule import Schedule
from lm.text_score import TextScore

HeadFactory = Callable[[int, int], Head]


class LanguageModel(SequenceModule):
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

    tokenizer: Tokenizer | None

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
        direction: Literal["left_to_right", "right_to_left"] = "left_to_right",
        evaluation: Evaluation | None = None,
        optimizer: OptimizerFactory = lambda parameters: torch.optim.Adam(parameters, lr=0.001),
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(optimizer, schedule)
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
        self.vocab_size = vocab_size
        self.loss_at = loss_at
        self.carry = carry
        self.direction = direction
        self.evaluation = evaluation
        self.readers: dict[tuple[str, int], Reader] = {}
        self.train_metrics = TokenMetrics()
        self.evaluation_metrics = TokenMetrics()
        self.units: Tensor | None = None

    def forward(self, tokens: Tensor, state: NetworkState | None = None) -> RNNOutput:
        """Tokens `(batch, time)` and the state before them -> hidden states and the state after."""
        output: RNNOutput = self.network(tokens, state)
        return output

    def layers_in_order(self) -> list[nn.Module]:
        """See SequenceModule: the embedding, each layer, the head."""
        return [self.network.embedding, *self.network.layers, self.head]

    # Training and evaluation

    def setup(self, stage: str) -> None:
        """Check that the data is read the way this model reads, and learn how long its tokens are.

        Raises:
            ValueError: if the data's direction, order of windows or vocabulary does not fit.
        """
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if (direction := getattr(data, "direction", self.direction)) != self.direction:
            raise ValueError(f"direction: the model reads {self.direction} and its data {direction}; set both the same way")
        if stage == "fit" and self.carry and not getattr(data, "contiguous", True):
            raise ValueError(
                "carry: a state cannot be carried over windows drawn at random; set model.carry false, or stream in order"
            )
        if stage == "fit" and (text := getattr(data, "tokens", None)):
            check_order_of_frequency(self, text("train"))
        self.network.learn_spellings(self.tokenizer)
        lengths = self.tokenizer.token_lengths() if self.tokenizer else None
        self.units = None if lengths is None else torch.tensor(lengths, dtype=torch.float32)

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
        units = None if self.units is None else self.units.to(part.targets.device)[part.targets]
        self.evaluation_metrics.update(reading.nll, reading.correct, part.mask, units)

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

    def predict_step(self, batch: Window, batch_index: int, dataloader_idx: int = 0) -> Prediction:
        """The true token after each position beside the most probable one, lane by lane; ids where there is no tokenizer."""
        output = self(batch.tokens, self.carried_state("predict", dataloader_idx) if self.carry else None)
        if self.carry and output.state is not None:
            self.carry_state(output.state, "predict", dataloader_idx)
        part = self.predicted(batch)
        hidden = output.hidden[:, -part.targets.shape[1] :]
        predicted = torch.stack([self.head.log_prob(step).argmax(dim=-1) for step in hidden.unbind(dim=1)], dim=1)
        real = torch.ones_like(part.targets, dtype=torch.bool) if part.mask is None else part.mask.bool()
        ids = (part.targets[real].tolist(), predicted[real].tolist())
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

    def next_token(self, tokens: Tensor, state: NetworkState | None) -> tuple[Tensor, NetworkState]:
        """Tokens `(rows, time)` and the state before them -> log-probabilities of the next `(rows, vocab)`, the state after."""
        output = self(tokens, state)
        return self.head.log_prob(output.hidden[:, -1]), output.state

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
                nll = self.head.loss(self(padded[:, :-1]).hidden, padded[:, 1:], None).nll
        else:
            nll = padded.new_zeros(padded.shape[0], 0, dtype=torch.float32)
        for row, values in zip(rows, nll.cpu(), strict=True):
            scores.append(TextScore(tokenizer.tokens(row[1:].tolist()), values[: max(0, len(row) - 1)]))
        return scores
