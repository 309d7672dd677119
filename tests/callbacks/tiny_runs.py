"""A tiny language model trained in a moment, for what callbacks change about it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from torch import Tensor

from datamodules.language import LanguageData
from lm import LanguageModel

LINES = ["the cat sees the dog .", "the dog hears the bird .", "a bird likes a cat ."] * 8


@dataclass
class Recorder(Callback):
    """Keeps every logged value of every step."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        for name, value in trainer.callback_metrics.items():
            self.values.setdefault(name, []).append(float(value))


@dataclass
class Run:
    """A finished training."""

    model: LanguageModel
    trainer: Trainer
    values: dict[str, list[float]]

    def weights(self) -> list[Tensor]:
        return [parameter.detach() for parameter in self.model.parameters()]


TinyRun = Callable[..., Run]


@pytest.fixture
def tiny_run(make_data: Callable[..., LanguageData], make_trainer: Callable[..., Trainer]) -> TinyRun:
    """tiny_run(callbacks, model settings, trainer settings, checkpoint): the same training every time but for these."""

    def train(
        callbacks: Sequence[Callback] = (),
        model: dict[str, Any] | None = None,
        trainer: dict[str, Any] | None = None,
        checkpoint: str | None = None,
    ) -> Run:
        torch.manual_seed(0)
        data = make_data(LINES, validation=LINES[:6], lanes=4, steps=6)
        settings: dict[str, Any] = {"embedding_size": 6, "layer_sizes": [6], "optimizer": partial(torch.optim.SGD, lr=2.0)}
        module = LanguageModel(data.vocab_size, **settings | (model or {}))
        recorder = Recorder()
        fitting = make_trainer(callbacks=[*callbacks, recorder], **{"max_epochs": 2, "num_sanity_val_steps": 0} | (trainer or {}))
        fitting.fit(module, data, ckpt_path=checkpoint)
        return Run(module, fitting, recorder.values)

    return train


def same(one: Run, other: Run) -> bool:
    """Whether two trainings ended with the same weights, bit for bit."""
    return all(torch.equal(left, right) for left, right in zip(one.weights(), other.weights(), strict=True))
