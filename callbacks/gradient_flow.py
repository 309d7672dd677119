"""Vanishing and exploding gradients, drawn while a model trains."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from callbacks.paths import run_folder
from callbacks.pictures import keep_picture
from lm.gradient_flow import Flow, gradient_flow
from lm.module import LanguageModel

LEAST = 1e-12
"""What is smaller is not drawn."""
STYLES = ("-", "--")
"""In turns, so that of two lines in one place both are seen."""


class StepNorms(Callback):
    """Notes the loss of every step of the optimizer, and the norm of all gradients where a GradientClipping measures it.

    Attributes:
        steps: `loss` and `gradient_norm`, one for each step.
    """

    def __init__(self) -> None:
        self.steps: dict[str, list[float]] = {"loss": [], "gradient_norm": []}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note those of this step."""
        for name, values in self.steps.items():
            if (value := trainer.callback_metrics.get(f"train/{name}")) is not None:
                values.append(float(value))

    def state_dict(self) -> dict[str, Any]:
        """What was noted so far, so that a resumed run draws one curve."""
        return {"steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it."""
        self.steps = {name: list(values) for name, values in state_dict["steps"].items()}


class GradientFlow(StepNorms):
    """Measures what flows through each layer at the beginning of an epoch, and draws `gradient_flow.png` into the run's folder.

    Above, for the first window and for that of the last epoch: the norms of activations and of ∂L/∂h_t from step to step, and of
    ∂h_T/∂h_t by lag. Below, the loss over steps of the optimizer and, where a GradientClipping is there, the norm of all
    parameters' gradients before it cuts. Logs `train/flow`, ‖∂h_T/∂h_1‖ of the last layer.

    Args:
        every_n_epochs: epochs from one measurement to the next.
        rows: how many rows of a batch ∂h_T/∂h_t is computed of.
        file: name of the picture.

    Raises:
        ValueError: if a count is not positive.
        TypeError: if the module is no language model.
    """

    def __init__(self, every_n_epochs: int = 1, rows: int = 4, file: str = "gradient_flow.png") -> None:
        if every_n_epochs < 1 or rows < 1:
            raise ValueError(f"GradientFlow: it counts epochs and rows from 1, got {every_n_epochs=}, {rows=}")
        super().__init__()
        self.every_n_epochs = every_n_epochs
        self.rows = rows
        self.file = file
        self.flows: dict[str, list[Flow]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what has no layers to measure."""
        if not isinstance(pl_module, LanguageModel):
            raise TypeError(f"GradientFlow needs a LanguageModel, whose layers it unrolls; {type(pl_module).__name__} is none")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Measure, at the beginning of an epoch."""
        if batch_idx or trainer.current_epoch % self.every_n_epochs or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, LanguageModel)
        flows = gradient_flow(pl_module.network, pl_module.head, batch, self.rows)
        first = next(iter(self.flows), None)
        kept = {} if first is None else {first: self.flows[first]}
        self.flows = {**kept, f"step {trainer.global_step}": flows}
        pl_module.log("train/flow", float(flows[-1].of_last[0]), batch_size=1, rank_zero_only=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        path = run_folder(trainer) / self.file
        if trainer.is_global_zero and self.flows:
            keep_picture(trainer, self.figure(), path, "gradient flow", "gradient_flow")

    def state_dict(self) -> dict[str, Any]:
        """See StepNorms, with the measurements."""
        flows = {step: [flow._asdict() for flow in layers] for step, layers in self.flows.items()}
        return {**super().state_dict(), "flows": flows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See StepNorms."""
        super().load_state_dict(state_dict)
        self.flows = {step: [Flow(**flow) for flow in layers] for step, layers in state_dict["flows"].items()}

    def figure(self) -> Figure:
        """The five panels."""
        figure = Figure(figsize=(12, 7), layout="constrained")
        above, below = figure.subfigures(2, squeeze=False).flat
        several = len(next(iter(self.flows.values()))) > 1
        lines = {
            f"{step}, layer {number}" if several else step: flow
            for step, layers in self.flows.items()
            for number, flow in enumerate(layers, start=1)
        }
        panels = above.subplots(1, 3)
        draw_flows(panels, lines)
        beside(panels[-1])
        draw_steps(below.subplots(1, 2), {"": self.steps})
        return figure


def draw_flows(panels: Sequence[Axes], flows: Mapping[str, Flow]) -> None:
    """Norms of activations, of gradients of the loss, and of those of the last state, in three panels; a line for each flow."""
    activations, of_loss, of_last = panels
    for style, (name, flow) in zip(cycle(STYLES), flows.items(), strict=False):
        time = range(1, len(flow.activations) + 1)
        activations.plot(time, flow.activations, style, label=name)
        of_loss.plot(time, flow.of_loss, style, label=name)
        draw_by_lag(of_last, name, flow, style)
    activations.set(xlabel="step t", ylabel="‖h_t‖")
    of_loss.set(xlabel="step t", ylabel="‖∂L/∂h_t‖")
    for axes in (activations, of_loss):
        axes.set(yscale="log")
        axes.grid(alpha=0.3)


def draw_by_lag(axes: Axes, name: str, flow: Flow, style: str = "-") -> None:
    """A line: how much of a change comes through so many steps."""
    norms = flow.of_last.flip(0)
    axes.plot(range(len(norms)), norms.where(norms > LEAST, torch.nan), style, label=name)
    axes.set(xlabel="lag T − t", ylabel="‖∂h_T/∂h_t‖", yscale="log")
    axes.grid(alpha=0.3)


def beside(axes: Axes) -> None:
    """Its legend, to the right of it."""
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def draw_steps(panels: Sequence[Axes], runs: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """The norm of all gradients and the loss over steps of the optimizer, in two panels; a line for each run."""
    for axes, name, label in zip(panels, ("gradient_norm", "loss"), ("‖gradient of all parameters‖", "loss"), strict=True):
        for run, steps in runs.items():
            if steps[name]:
                axes.plot(range(1, len(steps[name]) + 1), steps[name], linewidth=1, label=run)
        axes.set(xlabel="optimizer steps", ylabel=label, yscale="log")
        axes.grid(alpha=0.3)
