"""What is said of a checkpoint whose weights are those of another model, or of another tying."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer

from callbacks import WeightTying
from datamodules.language import LanguageData
from lm import LanguageModel
from lm.adaptive_softmax import AdaptiveSoftmaxHead
from lm.heads import LinearHead
from lm.matching import shared
from lm.mixture_of_softmaxes import MixtureOfSoftmaxesHead

LINES = ["the cat sees the dog .", "the dog hears the bird ."] * 4
SIZE = 6
MakeTrainer = Callable[..., Trainer]

pytestmark = pytest.mark.usefixtures("seed")


@pytest.fixture
def data(make_data: Callable[..., LanguageData]) -> LanguageData:
    return make_data(LINES, validation=LINES, lanes=2, steps=4)


def make_model(data: LanguageData, **settings: Any) -> LanguageModel:
    return LanguageModel(data.vocab_size, SIZE, [SIZE], **settings)


@pytest.fixture
def save(data: LanguageData, make_trainer: MakeTrainer, tmp_path: Path) -> Callable[..., Path]:
    """save(callbacks, **settings of the model): the checkpoint of a step."""

    def train(callbacks: list[Callback], **settings: Any) -> Path:
        trainer = make_trainer(max_steps=1, callbacks=callbacks)
        trainer.fit(make_model(data, **settings), data)
        trainer.save_checkpoint(tmp_path / "saved.ckpt")
        return tmp_path / "saved.ckpt"

    return train


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": partial(LinearHead, bias=False)}, r"it has a head\.bias, unlike this model; .*\(head: by default\), or leave"),
        ({"head": MixtureOfSoftmaxesHead}, r"it has no head\.prior\.weight, unlike this model"),
        ({"head": partial(AdaptiveSoftmaxHead, cutoffs=[3])}, r"it has no head\.gate\.weight, unlike this model"),
        ({"head": partial(LinearHead, projection_size=4)}, r"its head\.weight is \[9, 6\] and this model's \[9, 4\]"),
    ],
)
@pytest.mark.parametrize("how", ["fit", "validate"])
def test_another_head_is_named_in_one_sentence(
    data: LanguageData, make_trainer: MakeTrainer, save: Callable[..., Path], settings: dict[str, Any], message: str, how: str
) -> None:
    path, model, trainer = save([]), make_model(data, **settings), make_trainer(max_steps=2)
    with pytest.raises(ValueError, match=rf"^checkpoint: {message}[^\n]*$"):
        getattr(trainer, how)(model, data, ckpt_path=path)
    with pytest.raises(ValueError, match=rf"^checkpoint: {message}[^\n]*$"):
        LanguageModel.load_from_checkpoint(path, **settings)


def test_the_settings_that_differ_are_those_of_the_checkpoint(save: Callable[..., Path]) -> None:
    path = save([], head=partial(AdaptiveSoftmaxHead, cutoffs=[3]), input_dropout=0.1)
    message = r'\(head: {"class_path": "lm\.adaptive_softmax\.AdaptiveSoftmaxHead", "init_args": {"cutoffs": \[3\]}}\)'
    with pytest.raises(ValueError, match=message):
        LanguageModel.load_from_checkpoint(path, head=LinearHead, optimizer=torch.optim.SGD)


def test_weights_that_were_apart_are_not_tied(data: LanguageData, make_trainer: MakeTrainer, save: Callable[..., Path]) -> None:
    path, trainer = save([]), make_trainer(max_steps=2, callbacks=[WeightTying()])
    message = r"^checkpoint: its network.embedding.weight is not its head.weight, and this run ties them; leave WeightTying out$"
    for use in (trainer.fit, trainer.validate):
        with pytest.raises(ValueError, match=message):
            use(make_model(data), data, ckpt_path=path)


def test_tied_weights_go_on_tied_and_are_evaluated_either_way(
    data: LanguageData, make_trainer: MakeTrainer, save: Callable[..., Path]
) -> None:
    path = save([WeightTying()])
    message = r"^checkpoint: its network.embedding.weight and head.weight are one weight, and two in this run; add WeightTying$"
    with pytest.raises(ValueError, match=message):
        make_trainer(max_steps=2).fit(make_model(data), data, ckpt_path=path)
    make_trainer(max_steps=2, callbacks=[WeightTying()]).fit(make_model(data), data, ckpt_path=path)
    found = [
        make_trainer(callbacks=callbacks).validate(make_model(data), data, ckpt_path=path, verbose=False)
        for callbacks in ([], [WeightTying()])
    ]
    assert found[0] == found[1]


def test_parts_of_one_tensor_are_not_one_weight() -> None:
    whole, empty = torch.zeros(4, 2), torch.zeros(0)
    assert shared({"a": whole[:2], "b": whole[2:], "c": whole, "d": empty, "e": empty}) == []
    assert shared({"a": whole, "b": torch.zeros(4, 2), "c": whole}) == [["a", "c"]]
