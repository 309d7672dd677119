"""The seam of evaluations: where one applies, what it is told, and that a checkpoint keeps it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from readings import stream, text, tiny
from torch.utils.data import DataLoader

from datamodules.language import LanguageData
from datamodules.streams import SequentialStream, Window
from lm.dynamic_evaluation import DynamicEvaluation
from lm.ensemble import Ensemble
from lm.evaluation import Evaluation, Reader, Reading, Text
from lm.module import LanguageModel
from lm.neural_cache import NeuralCache
from lm.update_rule import RMS, GradientDescent

MakeTrainer = Callable[..., Trainer]
LINES = ["a b c d e f g", "b c", "", "g f e d c b a"] * 3

pytestmark = pytest.mark.usefixtures("seed")


@dataclass(kw_only=True)
class Counting(Evaluation):
    """Says of the n-th target of a text that its nll is n."""

    texts: list[Text] = field(default_factory=list)

    def begin(self, model: LanguageModel, text: Text) -> Reader:  # noqa: ARG002
        self.texts.append(text)
        seen = 0

        def read(window: Window) -> Reading:
            nonlocal seen
            nll = torch.arange(seen, seen + window.targets.numel()).float().view(window.targets.shape)
            seen += window.targets.numel()
            return Reading(nll, None, torch.empty(0))

        return read


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_a_text_is_read_from_its_start_each_time_and_every_loader_is_one(make_trainer: MakeTrainer, stage: str) -> None:
    evaluation = Counting()
    model, windows = tiny(evaluation=evaluation), [stream(text(22), 4), stream(text(12), 30)]
    name = {"validate": "val", "test": "test"}[stage]
    for _ in range(2):
        first, *_ = getattr(make_trainer(), stage)(model, windows, verbose=False)
        assert first[f"{name}/loss"] == pytest.approx((sum(range(21)) + sum(range(11))) / 32)
        assert set(first) == {f"{name}/loss", f"{name}/ppl"}  # nothing is said of accuracy
    assert [place[:2] for place in evaluation.texts] == [(name, 0), (name, 1)] * 2
    assert [place.windows for place in evaluation.texts] == windows * 2


def test_validation_within_training_is_of_the_model_as_it_is(make_trainer: MakeTrainer) -> None:
    model, tokens = tiny(evaluation=NeuralCache(weight=0.5, window=20)), text(80)
    trainer = make_trainer(max_epochs=1, num_sanity_val_steps=1)
    trainer.fit(model, SequentialStream(tokens.numpy(), 2, 4), stream(tokens, 9))
    within = dict(trainer.callback_metrics)
    (cached,) = make_trainer().validate(model, stream(tokens, 9), verbose=False)
    model.evaluation = None
    (static,) = make_trainer().validate(model, stream(tokens, 9), verbose=False)
    assert within["val/loss"] == pytest.approx(static["val/loss"])
    assert within["val/accuracy"] == pytest.approx(static["val/accuracy"])
    assert cached["val/loss"] != pytest.approx(static["val/loss"], rel=1e-3)


def test_windows_in_any_order_are_refused_where_they_have_to_follow_each_other(make_trainer: MakeTrainer) -> None:
    model = tiny(evaluation=NeuralCache(window=3))
    loader: DataLoader[Any] = DataLoader(list(stream(text(30), 5)), batch_size=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="NeuralCache follows a text from window to window, and a DataLoader may hold"):
        make_trainer().test(model, loader, verbose=False)


EVALUATIONS = [
    NeuralCache(theta=0.5, window=4, base=DynamicEvaluation(decay=0.1, rule=RMS(lanes=7))),
    DynamicEvaluation(rule=GradientDescent()),
    Ensemble(checkpoints=["one.ckpt", "other.ckpt"]),
]


@pytest.mark.parametrize("evaluation", EVALUATIONS, ids=lambda evaluation: type(evaluation).__name__)
def test_a_checkpoint_keeps_it(
    make_data: Callable[..., LanguageData], make_trainer: MakeTrainer, tmp_path: Path, evaluation: Evaluation
) -> None:
    data = make_data(LINES, lanes=2, steps=4)
    trainer = make_trainer(max_steps=1)
    trainer.fit(LanguageModel(data.vocab_size, 4, [4], evaluation=evaluation), data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    assert LanguageModel.load_from_checkpoint(tmp_path / "model.ckpt").evaluation == evaluation
