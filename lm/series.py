"""SeriesModel: a recurrent network that predicts each number of a series from those before it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics import MeanSquaredError

from datamodules.streams import Window
from lm.base import OptimizerFactory, SequenceModule
from lm.bidirectional import Bidirectional
from lm.initialisation import Initialisation, initialise
from lm.layers import GRU
from lm.network import LayerFactories, NetworkState, RecurrentNetwork, RNNOutput
from lm.prediction import Prediction
from lm.schedule import Schedule


class Number(nn.Module):
    """What stands in the place of an embedding: a number is its own, of one feature.

    Args:
        vocab_size: there is one kind of number.
        embedding_size: it has one feature.
    """

    def __init__(self, vocab_size: int = 1, embedding_size: int = 1) -> None:
        super().__init__()

    def forward(self, values: Tensor) -> Tensor:
        """`(batch, time)` -> `(batch, time, 1)`."""
        return values[..., None]


class SeriesModel(SequenceModule):
    """An autoregressive model of numbers, trained on windows of a series by their squared error.

    With `lm.delay_line.DelayLine` of τ features it is autoregression of order τ, linear or, with `readout_sizes`, a perceptron;
    with any other recurrent layer a latent autoregression, whose state has the whole past.

    Args:
        layer_sizes: hidden features of each layer, from the input up.
        cell: makes each layer: `lm.layers.GRU`, `lm.delay_line.DelayLine`, or a class of your own; or several, one for each.
        readout_sizes: features of the ReLU layers between the last layer and the prediction; none where it is linear.
        layer_dropout: rate between layers.
        output_dropout: rate after the last layer.
        standardize: train on (x − mean)/deviation, of the training part; predictions and errors are of x itself.
        initialisation: of all weights, by name (see lm.initialisation).
        loss_at: predict after every value of a window, or after its last only.
        carry: give each window the state after the one before, detached; else every window starts from zeros.
        horizons: how many steps ahead a test predicts.
        optimizer: makes the optimizer from the parameters.
        schedule: the learning-rate schedule; null for a constant rate.

    Raises:
        ValueError: if a layer looks at what it is to predict, or a horizon is none.
    """

    BEST = ("val/mse", "min")
    TOKENIZERS = ()
    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        layer_sizes: Sequence[int] = (16,),
        cell: LayerFactories = GRU,
        readout_sizes: Sequence[int] = (),
        layer_dropout: float = 0.0,
        output_dropout: float = 0.0,
        standardize: bool = True,
        initialisation: Initialisation = "default",
        loss_at: Literal["every", "last"] = "every",
        carry: bool = False,
        horizons: Sequence[int] = (1, 4, 16, 64),
        optimizer: OptimizerFactory = lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(optimizer, schedule)
        if not horizons or min(horizons) < 1:
            raise ValueError(f"horizons: a prediction is 1 step ahead or more, got {list(horizons)}")
        self.network = RecurrentNetwork(
            1,
            embedding_size=1,
            embedding=Number,
            layer_sizes=layer_sizes,
            cell=cell,
            layer_dropout=layer_dropout,
            output_dropout=output_dropout,
        )
        if any(isinstance(layer, Bidirectional) for layer in self.network.layers):
            raise ValueError("cell: a series model predicts what a bidirectional layer has already read; use one direction")
        sizes = [self.network.output_size, *readout_sizes]
        hidden = [part for pair in pairwise(sizes) for part in (nn.Linear(*pair), nn.ReLU())]
        self.readout = nn.Sequential(*hidden, nn.Linear(sizes[-1], 1))
        initialise(self, initialisation)
        self.standardize = standardize
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))
        self.loss_at = loss_at
        self.carry = carry
        self.horizons = tuple(horizons)
        self.train_metrics = MeanSquaredError()
        self.validation_error = MeanSquaredError()
        self.test_errors = nn.ModuleDict({str(horizon): MeanSquaredError() for horizon in self.horizons})

    def forward(self, values: Tensor, state: NetworkState | None = None) -> tuple[Tensor, RNNOutput]:
        """Values `(batch, time)` and the state before them -> the predicted value after each, and what the network says."""
        output = self.network((values - self.mean) / self.deviation, state)
        return self.read_out(output.hidden), output

    def read_out(self, hidden: Tensor) -> Tensor:
        """Hidden states `(..., features)` -> the value predicted after each, `(...)`."""
        predicted: Tensor = self.readout(hidden)[..., 0] * self.deviation + self.mean
        return predicted

    def layers_in_order(self) -> list[nn.Module]:
        """See SequenceModule: each layer, the readout."""
        return [*self.network.layers, self.readout]

    # Training

    def setup(self, stage: str) -> None:
        """Learn the mean and the deviation of what trains; a checkpoint's come after that.

        Raises:
            ValueError: if the order of windows does not fit, or all values are the same.
        """
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if stage != "fit" or data is None:
            return
        if self.carry and not data.contiguous:
            raise ValueError(
                "carry: a state cannot be carried over windows drawn at random; set model.carry false, or stream in order"
            )
        if self.standardize:
            values = torch.from_numpy(data.training_values)
            if values.std() == 0:
                raise ValueError(f"standardize: all {len(values)} training values are {values[0]}; there is nothing to learn")
            self.mean.copy_(values.mean())
            self.deviation.copy_(values.std())

    def training_step(self, batch: Window, batch_index: int) -> dict[str, Any]:
        """One window: its squared error in units of the deviation, with every loss term, and how many values it read."""
        predicted, output = self(batch.tokens, self.carried_state("train") if self.carry else None)
        if self.carry:
            self.carry_state(output.state, "train")
        part = slice(-1 if self.loss_at == "last" else 0, None)
        predicted, targets = predicted[:, part].contiguous(), batch.targets[:, part].contiguous()
        self.train_metrics.update(predicted.detach(), targets)
        error = (predicted - targets).square().mean()
        total = self.regularized(error / self.deviation**2, output)
        self.log_dict({"train/loss": total.detach(), "train/mse": error.detach()}, prog_bar=True, batch_size=1)
        return {"loss": total, "tokens": batch.tokens.numel()}

    def on_train_epoch_end(self) -> None:
        """Log the error of the epoch."""
        self.log("train/mse_epoch", self.train_metrics.compute(), sync_dist=True)
        self.train_metrics.reset()

    # Evaluation

    def validation_step(self, batch: Window, batch_index: int) -> None:
        """The part of a series that the mask tells, each value from all before it."""
        predicted, _ = self(batch.tokens)
        wanted = held_out(batch)
        self.validation_error.update(predicted[:, -wanted:].contiguous(), batch.targets[:, -wanted:].contiguous())

    def on_validation_epoch_end(self) -> None:
        """Log `val/mse`."""
        self.log("val/mse", self.validation_error.compute(), prog_bar=True, sync_dist=True)
        self.validation_error.reset()

    def test_step(self, batch: Window, batch_index: int) -> None:
        """The same from all but the last k − 1 values before it, for every horizon k."""
        for horizon, predicted in self.ahead(batch.tokens, held_out(batch)).items():
            error = self.test_errors[str(horizon)]
            assert isinstance(error, MeanSquaredError)
            error.update(predicted, batch.targets[:, -predicted.shape[1] :].contiguous())

    def on_test_epoch_end(self) -> None:
        """Log `test/mse`, one step ahead, and `test/mse_k` k steps ahead."""
        for horizon, error in self.test_errors.items():
            assert isinstance(error, MeanSquaredError)
            self.log("test/mse" if horizon == "1" else f"test/mse_{horizon}", error.compute(), sync_dist=True)
            error.reset()

    def predict_step(self, batch: Window, batch_index: int) -> Prediction:
        """Each value beside what was predicted k steps ahead, for every horizon k."""
        wanted = held_out(batch)
        ahead = {horizon: predicted[0].tolist() for horizon, predicted in self.ahead(batch.tokens, wanted).items()}
        observed, last = batch.targets[0, -wanted:].tolist(), batch.targets.shape[1] + 1
        columns = [[str(time) for time in range(last - wanted + 1, last + 1)], [f"{value:.6g}" for value in observed]]
        for predicted in ahead.values():
            columns.append([""] * (wanted - len(predicted)) + [f"{value:.6g}" for value in predicted])
        return Prediction(("time", "observed", *(f"{horizon} ahead" for horizon in ahead)), list(zip(*columns, strict=True)))

    # Forecasts

    def ahead(self, values: Tensor, wanted: int) -> dict[int, Tensor]:
        """What was predicted of the last values of a series, for every horizon k from all but their last k − 1 predecessors.

        Args:
            values: `(rows, time)`; the last prediction is of the value after them.
            wanted: how many predictions to make.

        Returns:
            by horizon, `(rows, predictions)`, fewer than wanted where a series has not begun k steps before.

        Raises:
            ValueError: if it has for none.
        """
        time, furthest = values.shape[1], max(self.horizons)
        if furthest > time:
            raise ValueError(
                f"horizons: {furthest} steps ahead need as many values before, and there are {time}: set shorter ones"
            )
        positions = min(time, wanted + furthest - 1)
        forecasts = self.forecast(values, furthest, positions)
        found = {}
        for horizon in self.horizons:
            stop = positions - horizon + 1
            found[horizon] = forecasts[:, max(0, stop - wanted) : stop, horizon - 1]
        return found

    @torch.no_grad()
    def forecast(self, values: Tensor, steps: int, positions: int = 1) -> Tensor:
        """Continue a series on its own predictions, from each of its last positions t as if the values after t were unknown.

        Args:
            values: `(rows, time)`.
            steps: how many values to predict after each position.
            positions: how many of the last positions to start from.

        Returns:
            `(rows, positions, steps)`: x_{t+1}, x_{t+2}, ... for each position t.
        """
        with self.evaluating():
            before = values.shape[1] - positions
            state = self(values[:, :before])[1].state if before else None
            predicted, states = [], []
            for now in torch.split(values[:, before:], 1, dim=1):
                found, output = self(now, state)
                state = output.state
                predicted.append(found)
                states.append(state)
            # From here on every position is a row of its own.
            state = tuple(
                tuple(torch.stack(parts, dim=2).flatten(1, 2) for parts in zip(*layers, strict=True))
                for layers in zip(*states, strict=True)
            )
            ahead = [torch.stack(predicted, dim=1).flatten(0, 1)]
            for _ in range(steps - 1):
                found, output = self(ahead[-1], state)
                state = output.state
                ahead.append(found)
            return torch.cat(ahead, dim=1).view(len(values), positions, steps)


def held_out(batch: Window) -> int:
    """How many of the last targets of a window are to be predicted."""
    return batch.targets.shape[1] if batch.mask is None else int(batch.mask[0].sum())
