"""Ensembles of language models: the mean of probabilities, and members that do not fit."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from readings import VOCAB, logits, text, tiny

from datamodules.recipes import Words
from datamodules.streams import CompleteStream
from lm.cells import GRUCell
from lm.character_cnn import CharacterCNN
from lm.ensemble import Ensemble
from lm.module import LanguageModel

MakeTrainer = Callable[..., Trainer]

pytestmark = pytest.mark.usefixtures("seed")


@pytest.fixture
def save(tmp_path: Path, make_trainer: MakeTrainer) -> Callable[[LanguageModel, str], str]:
    """save(model, name): the path of its checkpoint."""

    def write(model: LanguageModel, name: str) -> str:
        trainer = make_trainer()
        trainer.strategy.connect(model)
        trainer.save_checkpoint(tmp_path / name, weights_only=True)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize("steps", [7, 60])
def test_probabilities_are_averaged(make_trainer: MakeTrainer, save: Callable[..., str], steps: int) -> None:
    members = [tiny(), tiny(layer_sizes=[4], cell=GRUCell, output_dropout=0.5), tiny(residual=True)]
    tokens = text(60)
    with torch.no_grad():
        p = torch.stack([logits(member, member(tokens[None, :-1]).hidden)[0].softmax(dim=-1) for member in members]).mean(dim=0)
    members[0].evaluation = Ensemble(checkpoints=[save(member, f"{place}.ckpt") for place, member in enumerate(members[1:])])
    (metrics,) = make_trainer().test(members[0], CompleteStream(tokens.numpy(), 1, steps), verbose=False)
    assert metrics["test/loss"] == pytest.approx(-p[torch.arange(59), tokens[1:]].log().mean().item(), rel=1e-5)
    assert set(metrics) == {"test/loss", "test/ppl"}


def test_a_model_with_itself_is_the_model(make_trainer: MakeTrainer, save: Callable[..., str]) -> None:
    model, windows = tiny(loss_at="last", carry=False), CompleteStream(text(60).numpy(), 3, 7)
    (alone,) = make_trainer().test(model, windows, verbose=False)
    model.evaluation = Ensemble(checkpoints=[save(model, "twin.ckpt")])
    (metrics,) = make_trainer().test(model, windows, verbose=False)
    assert metrics["test/ppl"] == pytest.approx(alone["test/ppl"], rel=1e-6)


def test_a_member_may_read_words_as_characters(make_trainer: MakeTrainer, save: Callable[..., str]) -> None:
    tokenizer = Words().train(["a cat sees a dog"])
    embedding = partial(CharacterCNN, widths=[1], filters=[5])
    model = tiny(vocab_size=len(tokenizer), embedding=embedding)
    model.tokenizer = tokenizer
    model.network.learn_spellings(tokenizer)
    windows = CompleteStream(torch.randint(len(tokenizer), (40,)).numpy(), 1, 7)
    (alone,) = make_trainer().test(model, windows, verbose=False)
    model.evaluation = Ensemble(checkpoints=[save(model, "twin.ckpt")])
    (metrics,) = make_trainer().test(model, windows, verbose=False)
    assert metrics["test/ppl"] == pytest.approx(alone["test/ppl"], rel=1e-6)


def test_no_member_and_no_file_are_refused(make_trainer: MakeTrainer) -> None:
    with pytest.raises(ValueError, match="Ensemble: it has no other member; give the checkpoint of at least one"):
        Ensemble(checkpoints=[])
    with pytest.raises(FileNotFoundError, match=r"there is no file nothere\.ckpt"):
        make_trainer().test(tiny(evaluation=Ensemble(checkpoints=["nothere.ckpt"])), CompleteStream(text(9).numpy(), 1, 4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": VOCAB + 1}, f"has another vocabulary, of {VOCAB + 1} entries where this model has {VOCAB}"),
        ({"direction": "right_to_left"}, "has direction=right_to_left and this model left_to_right: give models that read alike"),
        ({"loss_at": "last"}, "has loss_at=last and this model every"),
    ],
)
def test_members_that_predict_something_else_are_refused(
    save: Callable[..., str], settings: dict[str, Any], message: str
) -> None:
    path = save(tiny(**settings), "other.ckpt")
    with pytest.raises(ValueError, match=message):
        Ensemble(checkpoints=[path]).member(path, tiny())


def test_members_of_other_words_are_refused(save: Callable[..., str]) -> None:
    other, model = (tiny(vocab_size=4) for _ in range(2))
    other.tokenizer, model.tokenizer = Words().train(["a b"]), Words().train(["a c"])
    path = save(other, "other.ckpt")
    with pytest.raises(ValueError, match="has another vocabulary, of 4 entries where this model has 4: give models that were"):
        Ensemble(checkpoints=[path]).member(path, model)
