"""A model that tells hidden tokens: it never sees them, it sees all others, and it learns."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import GivenLines
from lightning import LightningModule, Trainer
from saving import SaveAt
from torch.nn.functional import cross_entropy
from two_ranks import bare_trainer, on_two_ranks

from datamodules.masking import MaskedData, MaskedStream
from datamodules.recipes import Characters, Words
from datamodules.streams import CompleteStream, Window
from lm.masked import MaskedModel, encoded
from lm.network import RecurrentNetwork
from lm.prediction import Prediction

LINES = ["the cat sees the dog .", "the dog hears the bird .", "a bird likes a cat .", "a cat likes a dog ."] * 12
WITH_MASK = Words(reserved_tokens=("<unk>", "<eos>", "<mask>"))
NETWORK = partial(RecurrentNetwork, embedding_size=12, layer_sizes=[12, 12], bidirectional=True)
MakeTrainer = Callable[..., Trainer]


def make_data(folder: Path, **settings: Any) -> MaskedData:
    settings = {"tokenizer": WITH_MASK, "lanes": 4, "steps": 9, **settings}
    return MaskedData(source=GivenLines(LINES, LINES[:4], LINES[:4]), cache=str(folder / "cache"), **settings)


def make_model(vocab_size: int) -> MaskedModel:
    torch.manual_seed(0)
    return MaskedModel(vocab_size, NETWORK, optimizer=partial(torch.optim.Adam, lr=0.02))


@pytest.mark.usefixtures("seed")
def test_what_is_told_of_a_token_does_not_depend_on_it() -> None:
    """Whatever stands at a hidden place, the model says the same: what it reads there is the mask."""
    model = make_model(30).double().eval()
    tokens = np.random.default_rng(0).integers(3, 30, 61)
    window = next(iter(MaskedStream(CompleteStream(tokens, 2, 30), 0.15, 2)))
    assert window.mask is not None
    told = model(window.tokens).hidden
    for lane, step in torch.nonzero(window.mask).tolist():
        changed = tokens.copy()
        position = 1 + lane * 30 + step  # targets begin with the second token of the text
        assert changed[position] == window.targets[lane, step]
        changed[position] = 3 + (changed[position] - 3 + 1) % 27
        other = next(iter(MaskedStream(CompleteStream(changed, 2, 30), 0.15, 2)))
        assert other.targets[lane, step] != window.targets[lane, step]
        assert torch.equal(model(other.tokens).hidden[lane], told[lane])


@pytest.mark.usefixtures("seed")
def test_it_looks_at_every_token_on_both_sides() -> None:
    model = make_model(30).double()
    embedded = model.network.embed(torch.randint(3, 30, (1, 9))).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.network.read(embedded).hidden[0, 4].sum(), embedded)
    assert (gradient[0].abs().sum(dim=1) > 0).all()


@pytest.mark.usefixtures("seed")
def test_the_loss_is_the_mean_over_hidden_tokens() -> None:
    model = make_model(9)
    targets = torch.randint(9, (2, 5))
    mask = torch.tensor([[0, 1.0, 0, 0, 1], [0, 0, 0, 1, 0]])
    tokens = targets.masked_fill(mask.bool(), 2)
    logits = model.head.log_prob(model(tokens).hidden)
    by_hand = torch.stack([cross_entropy(logits[i, j], targets[i, j]) for i, j in ((0, 1), (0, 4), (1, 3))]).mean()
    loss = model.window_loss(Window(tokens, targets, mask))[1].total
    torch.testing.assert_close(loss, by_hand)
    assert all(gradient is not None for gradient in torch.autograd.grad(loss, list(model.parameters())))


def test_it_learns_fills_predicts_and_is_restored(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    data = make_data(tmp_path, predict_split="train")
    model, trainer = make_model(data.vocab_size), make_trainer(max_epochs=60)
    trainer.fit(model, data)
    assert trainer.callback_metrics["val/accuracy"] > 0.7
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    restored = MaskedModel.load_from_checkpoint(tmp_path / "model.ckpt")
    filling = restored.fill("the dog [MASK] the bird <mask>", choices=3)
    assert filling.text == "the dog hears the bird ."
    assert [found[0][0] for found in filling.choices] == ["hears", "."]
    assert all(len(found) == 3 and found[0][1] > found[1][1] > found[2][1] for found in filling.choices)
    batches = trainer.predict(model, data)
    assert batches is not None
    rows = [row for batch in batches if isinstance(batch, Prediction) for row in batch.rows]
    assert sum(target == told for target, told in rows) > 0.7 * len(rows) > 20
    assert "<mask>" not in {target for target, _ in rows}


def test_a_mask_may_stand_anywhere_and_for_a_character() -> None:
    words, letters = WITH_MASK.train(LINES), Characters(reserved_tokens=("<unk>", "[MASK]")).train(LINES)
    assert words.tokens(encoded("[MASK] dog<mask>", words)) == ["<mask>", "dog", "<mask>"]
    assert letters.tokens(encoded("c[MASK]t[MASK][MASK]", letters)) == ["c", "[MASK]", "t", "[MASK]", "[MASK]"]


def test_a_run_stopped_and_resumed_equals_one_that_was_not(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    def fit(checkpoint: Path | None, *callbacks: SaveAt) -> MaskedModel:
        data = make_data(tmp_path)
        model = make_model(data.vocab_size)
        make_trainer(max_epochs=2, callbacks=list(callbacks)).fit(model, data, ckpt_path=checkpoint)
        return model

    whole = fit(None, SaveAt(5, tmp_path / "fifth.ckpt"))
    resumed = fit(tmp_path / "fifth.ckpt")
    assert all(torch.equal(*pair) for pair in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_what_cannot_be_filled_is_refused(tmp_path: Path) -> None:
    model = make_model(20)
    with pytest.raises(ValueError, match="no token for what is masked"):
        model.fill("a [MASK]")
    model.tokenizer = make_data(tmp_path).tokenizer
    with pytest.raises(ValueError, match=r"nothing to fill in 'a cat': write \[MASK\]"):
        model.fill("a cat")


def test_data_that_hides_nothing_is_refused(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    data = make_data(tmp_path, hidden=False)
    model: LightningModule = make_model(data.vocab_size)
    with pytest.raises(TypeError, match=r"MaskedData hides none: give it datamodules\.masking\.MaskedData with hidden true"):
        make_trainer(max_epochs=1).fit(model, data)


def trained(ranks: int, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights and metrics after two epochs."""
    data = make_data(folder, evaluation_lanes=2)
    model = make_model(data.vocab_size)
    trainer = bare_trainer(ranks, max_epochs=2)
    trainer.fit(model, data)
    return model.state_dict(), dict(trainer.callback_metrics)


@pytest.mark.slow
def test_two_ranks_learn_as_one(tmp_path: Path) -> None:
    weights, metrics = trained(1, tmp_path)
    for others, other_metrics in on_two_ranks(trained, 2, tmp_path, folder=tmp_path):
        torch.testing.assert_close(others, weights, rtol=0, atol=1e-5)
        for name in ("train/ppl_epoch", "val/loss", "val/accuracy"):
            assert float(other_metrics[name]) == pytest.approx(float(metrics[name]), rel=1e-5), name
