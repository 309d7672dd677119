"""Dynamic evaluation: a model that goes on learning from the text it is evaluated on."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import torch
from torch import nn

from datamodules.streams import CompleteStream, Stream, Window
from lm.evaluation import Evaluation, Reader, Reading, Text, check_reads_on
from lm.module import LanguageModel
from lm.precision import product_dtype, wide
from lm.update_rule import RMS, UpdateRule, differentiated, learning


@dataclass(kw_only=True)
class DynamicEvaluation(Evaluation):
    """Takes a step down the gradient after every few words, on weights of its own (Krause et al. 2018, §5).

        W ← W + λ·(W₀ − W) − η·g

    g is the gradient of the mean loss of the segment that has just been predicted, W₀ the weight as it was trained. A rule gives
    each weight an η and a λ of its own. Dropout is off. The text is read in one lane, from its beginning to its end.

    The defaults are those of the authors' code; the best depend on the model: take those of the validation text.

    Args:
        learning_rate: η.
        decay: λ, how fast a weight falls back to what it was.
        steps: words in a segment.
        rule: `lm.update_rule.RMS`, or `GradientDescent`, which needs no training data, and a much larger η.

    Raises:
        ValueError: if an argument is out of its range.
    """

    learning_rate: float = 5e-5
    decay: float = 2e-3
    steps: int = 5
    rule: UpdateRule = field(default_factory=RMS)

    def __post_init__(self) -> None:
        if not 0 <= self.learning_rate < math.inf:
            raise ValueError(f"DynamicEvaluation: learning_rate is a number from 0, got {self.learning_rate}")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"DynamicEvaluation: decay is a share of the way back, from 0 to 1, got {self.decay}")
        if self.steps < 1:
            raise ValueError(f"DynamicEvaluation: steps counts the words of a segment from 1, got {self.steps}")

    def begin(self, model: LanguageModel, text: Text) -> Reader:
        """See Evaluation."""
        check_reads_on(model, "DynamicEvaluation")
        check_learns(model)
        self.check_text(text.in_order("DynamicEvaluation"))
        with recording_gradients():
            adapted = copy_to_train(model)
            trained, weights = list(learning(model).values()), list(learning(adapted).values())
            steps = self.rule.steps(adapted, lambda: training_tokens(model), self.steps, self.learning_rate, self.decay)

        def read(window: Window) -> Reading:
            with recording_gradients():
                readings = []
                for segment in segments(window, self.steps):
                    reading, gradients = differentiated(adapted, segment, text.stage)
                    readings.append(reading)
                    with torch.no_grad():
                        for weight, start, gradient, step in zip(weights, trained, gradients, steps, strict=True):
                            weight.lerp_(start, step.pull).addcmul_(gradient, step.push, value=-1)
                nll, raw = (torch.cat([getattr(part, name) for part in readings], dim=1) for name in ("nll", "raw"))
                return Reading(nll, None, raw)

        return read

    def check_text(self, windows: CompleteStream) -> None:
        """Refuse a text that is read in parts, or in windows that segments would not fill."""
        if windows.lanes != 1:
            raise ValueError(
                f"DynamicEvaluation: a text is learnt from its beginning to its end, and this one is cut into {windows.lanes}"
                " lanes: set data.evaluation_lanes 1"
            )
        if windows.steps % self.steps:
            raise ValueError(
                f"DynamicEvaluation: windows of {windows.steps} steps cannot be cut into segments of {self.steps}: set data.steps"
                f" to a multiple of {self.steps}"
            )


def segments(window: Window, steps: int) -> Iterator[Window]:
    """A window in parts of so many steps; the last may be shorter."""
    for start in range(0, window.tokens.shape[1], steps):
        part = slice(start, start + steps)
        yield Window(window.tokens[:, part], window.targets[:, part])


def training_tokens(model: LanguageModel) -> np.ndarray:
    """The ids of the training split.

    Raises:
        TypeError: if the trainer has no data module, or one of other data.
    """
    data = getattr(model.trainer, "datamodule", None)
    stream = None if data is None else data.train_dataloader()
    if not isinstance(stream, Stream):
        raise TypeError(
            "DynamicEvaluation: its rule measures gradients on the training split, and the trainer has no data that streams one:"
            " give it datamodules.LanguageData, or set model.evaluation.rule lm.update_rule.GradientDescent"
        )
    return stream.tokens


def check_learns(model: LanguageModel) -> None:
    """Refuse weights that steps would be lost on, or that were trained as one and are two here.

    Raises:
        ValueError: if there are some.
    """
    weights = learning(model)
    for name, weight in weights.items():
        if weight.dtype != wide(weight.dtype) or product_dtype(weight) == torch.float16:
            raise ValueError(
                f"DynamicEvaluation: {name} is computed with in {product_dtype(weight)}, in which its small steps are lost: set"
                " trainer.precision to 32-true or bf16-mixed"
            )
    matrices = [(name, weight) for name, weight in weights.items() if weight.dim() > 1]
    for (one, weight), (other, twin) in combinations(matrices, 2):
        if weight.shape == twin.shape and torch.equal(weight, twin):
            raise ValueError(
                f"DynamicEvaluation: {one} and {other} hold the same numbers, so that they were trained as one weight, and would"
                " learn apart: give the trainer the callbacks.WeightTying of their training"
            )


def copy_to_train(model: LanguageModel) -> LanguageModel:
    """A model with the same weights, but of its own, and no past."""
    twin = copy.copy(model)
    # What makes an optimizer, and the like, may not bear a copy. One dictionary: what is tied stays so.
    tensors = {name: twin.__dict__[name] for name in ("_modules", "_parameters", "_buffers")}
    twin.__dict__.update(copy.deepcopy(tensors))
    twin.states = {}
    for module in twin.modules():
        # cuDNN keeps what a backward pass needs in training mode only; dropout, of other modules, stays off.
        if isinstance(module, nn.RNNBase):
            module.training = True
    return twin


@contextmanager
def recording_gradients() -> Iterator[None]:
    """Gradients within an evaluation, which Lightning runs in inference mode or without them."""
    with torch.inference_mode(False), torch.enable_grad():
        yield
