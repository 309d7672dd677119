"""Vanishing, exploding and clipped gradients in one picture: `python -m experiments.gradient_flow`."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from lightning import seed_everything
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from callbacks import GradientClipping
from callbacks.gradient_flow import StepNorms, beside, draw_by_lag, draw_flows, draw_steps
from callbacks.paths import shown
from datamodules.builtin import PythonDocs
from datamodules.language import LanguageData
from datamodules.recipes import Characters
from datamodules.streams import Window
from experiments.command import command
from experiments.errors import UsageError
from experiments.silent_training import silent_trainer
from lm import LanguageModel
from lm.base import NonFiniteLossError
from lm.batch_norm import BatchNormElmanCell, BatchNormLSTMCell
from lm.cells import Activation, ElmanCell, GRUCell, LSTMCell
from lm.gradient_flow import Flow, gradient_flow
from lm.initialisation import Initialisation
from lm.layers import LayerFactory

RELU: LayerFactory = partial(ElmanCell, activation="relu")
CELLS: dict[str, LayerFactory] = {
    "Elman, tanh": ElmanCell,
    "with batch normalisation": BatchNormElmanCell,
    "with layer normalisation": partial(ElmanCell, layer_norm=True),
    "GRU": GRUCell,
    "LSTM": LSTMCell,
    "LSTM with batch normalisation": BatchNormLSTMCell,
    "LSTM with layer normalisation": partial(LSTMCell, layer_norm=True),
}
LIMITS = {"without clipping": float("inf"), "clipped at 1": 1.0}


def show_flow(
    units: int = 32,
    steps: int = 64,
    rows: int = 16,
    training_steps: int = 150,
    rate: float = 0.3,
    seed: int = 1,
    file: str = "runs/gradient_flow.png",
) -> None:
    """Draw how far gradients flow through untrained networks on Python's manual, and what clipping does in training.

    Elman networks of every activation and initialisation, one with batch and with layer normalisation, GRU and LSTM. The last row
    trains an Elman network of ReLU units from orthogonal matrices, with and without clipping. Prints ‖∂h_T/∂h_1‖ of each.

    Args:
        units: of the layer.
        steps: of the window.
        rows: of a batch.
        training_steps: of the optimizer, in the last row.
        rate: of its SGD.
        seed: of the weights.
        file: of the picture.
    """
    if min(units, rows, training_steps) < 1 or steps < 2 or rate <= 0:
        raise UsageError(
            f"gradient flow: it takes units, rows and training steps from 1, 2 steps or more and a positive rate, got {units=},"
            f" {rows=}, {training_steps=}, {steps=}, {rate=}"
        )
    data = LanguageData(PythonDocs(), Characters(reserved_tokens=["<unk>", "<eos>"]), lanes=rows, steps=steps)
    batch: Window = next(iter(data.training_stream))

    def flow(cell: LayerFactory, initialisation: Initialisation = "default") -> Flow:
        torch.manual_seed(seed)
        model = LanguageModel(data.vocab_size, units, [units], cell, initialisation=initialisation)
        return gradient_flow(model.network, model.head, batch)[0]

    panels = untrained_flows(flow)
    figure = Figure(figsize=(15, 4 * len(panels) + 4), layout="constrained")
    *grid, (norms, losses, by_lag) = figure.subplots(len(panels) + 1, 3)
    for row, (title, flows) in zip(grid, panels.items(), strict=True):
        draw_panel(row, title, flows)
    draw_by_lag(by_lag, "before", flow(RELU, "orthogonal"))
    runs = {}
    for name, limit in LIMITS.items():
        model = untrained(data, units, rate, seed)
        runs[name] = trained(model, data, training_steps, limit)
        if all(parameter.isfinite().all() for parameter in model.parameters()):
            draw_by_lag(by_lag, f"after, {name}", gradient_flow(model.network, model.head, batch)[0])
    draw_runs((norms, losses, by_lag), runs, rate)
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    print(f"picture: {shown(path)}")


def untrained_flows(flow: Callable[..., Flow]) -> dict[str, dict[str, Flow]]:
    """The flows of each panel: every initialisation of each activation, and the cells."""
    panels = {
        f"Elman, {activation}": {name: flow(partial(ElmanCell, activation=activation), name) for name in get_args(Initialisation)}
        for activation in get_args(Activation)
    }
    return panels | {"default initialisation": {name: flow(cell) for name, cell in CELLS.items()}}


def draw_panel(row: Sequence[Axes], title: str, flows: dict[str, Flow]) -> None:
    """Draw the flows of a panel, and print what is left of each gradient at the first step."""
    draw_flows(row, flows)
    row[0].set_title(title, loc="left", fontweight="bold")
    beside(row[-1])
    for name, found in flows.items():
        print(f"{title}, {name}: {float(found.of_last[0]):.2g}")


def draw_runs(row: Sequence[Axes], runs: dict[str, dict[str, list[float]]], rate: float) -> None:
    """Draw what the last row trained; flows before and after are in its last axes already."""
    norms, losses, by_lag = row
    draw_steps((norms, losses), runs)
    norms.set_title(f"Elman, relu, orthogonal, trained by SGD at {rate:g}", loc="left", fontweight="bold")
    norms.axhline(1, color="0.5", linestyle=":", label="limit")
    norms.legend()
    by_lag.set_ylim(1e-12, 1e12)  # what explodes leaves it
    beside(by_lag)


def untrained(data: LanguageData, units: int, rate: float, seed: int) -> LanguageModel:
    """What the last row trains."""
    seed_everything(seed, verbose=False)
    optimizer = partial(torch.optim.SGD, lr=rate)
    return LanguageModel(data.vocab_size, units, [units], RELU, initialisation="orthogonal", optimizer=optimizer)


def trained(model: LanguageModel, data: LanguageData, steps: int, norm: float) -> dict[str, list[float]]:
    """The norm of all gradients and the loss of each step of a training, which may end where the loss is no number."""
    noted = StepNorms()
    trainer = silent_trainer(
        max_steps=steps,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=[GradientClipping(norm=norm), noted],
    )
    try:
        trainer.fit(model, data)
    except NonFiniteLossError as error:
        print(f"clipped at {norm:g}: {error}".split(";")[0])
    return noted.steps


if __name__ == "__main__":
    command(show_flow)
