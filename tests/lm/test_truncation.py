"""Gradients through time: whole, cut every so many steps, and cut at random."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from lightning import Trainer
from torch import Tensor, nn

from datamodules.language import LanguageData
from lm import LanguageModel
from lm.bidirectional import Bidirectional
from lm.cells import ElmanCell, GRUCell, LSTMCell
from lm.layers import GRU, LSTM, RNN, LayerFactory
from lm.mogrifier import Mogrifier
from lm.recurrent_dropout import RecurrentDropoutLSTM
from lm.truncation import RandomTruncation, RegularTruncation, Truncation, with_gradient

pytestmark = pytest.mark.usefixtures("seed")

BATCH, STEPS, INPUT, HIDDEN = 2, 7, 3, 4


class Fixed(Truncation):
    """ξ_1, ξ_2, ... as they are given."""

    given: Iterator[float]

    def weights(self, like: Tensor) -> Callable[[], float]:  # noqa: ARG002
        return lambda: next(self.given)


def gradients(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Of a loss that weighs every output differently."""
    said, _ = layer(x)
    loss = (said * torch.linspace(-1, 1, said.numel()).view_as(said)).sum()
    return list(torch.autograd.grad(loss, list(layer.parameters())))


@pytest.mark.parametrize("cell", [ElmanCell, GRUCell, LSTMCell, RNN, GRU, LSTM, Mogrifier])
@pytest.mark.parametrize("kind", [partial(RegularTruncation, steps=STEPS), partial(RandomTruncation, keep=1.0)])
def test_a_gradient_that_is_never_cut_is_the_full_one(cell: LayerFactory, kind: Callable[..., Truncation]) -> None:
    layer, x = kind(INPUT, HIDDEN, cell), torch.randn(BATCH, STEPS, INPUT)
    torch.testing.assert_close(layer(x), layer.cell(x))
    torch.testing.assert_close(gradients(layer, x), gradients(layer.cell, x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [partial(RegularTruncation, steps=2), partial(RandomTruncation, keep=0.5)])
def test_what_is_computed_stays_the_same_bit_for_bit(kind: Callable[..., Truncation]) -> None:
    layer, x = kind(INPUT, HIDDEN, LSTMCell), torch.randn(BATCH, STEPS, INPUT)
    state = (torch.randn(1, BATCH, HIDDEN), torch.randn(1, BATCH, HIDDEN))
    assert torch.equal(layer(x, state)[0], layer.cell(x, state)[0])


@pytest.mark.parametrize("cell", [ElmanCell, LSTMCell, GRU])
def test_cut_every_three_steps_it_is_that_of_segments_with_the_state_detached(cell: LayerFactory) -> None:
    layer, x = RegularTruncation(INPUT, HIDDEN, cell, steps=3), torch.randn(BATCH, STEPS, INPUT)

    class Segments(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = layer.cell

        def forward(self, x: Tensor) -> tuple[Tensor, None]:
            said, state = [], None
            for segment in torch.split(x, 3, dim=1):
                out, state = self.cell(segment, None if state is None else tuple(part.detach() for part in state))
                said.append(out)
            return torch.cat(said, dim=1), None

    torch.testing.assert_close(gradients(layer, x), gradients(Segments(), x), rtol=1e-4, atol=1e-6)


def test_the_recursion_of_a_linear_unit_by_hand() -> None:
    """h_t = w h_{t−1} + x_t has dh_3/dw = h_2 + ξ_3 w (h_1 + ξ_2 w h_0), where h_0 = 0."""
    layer = Fixed(1, 1, partial(ElmanCell, activation="relu"))
    weights = {"cell.from_input.weight": 1.0, "cell.from_input.bias": 0.0, "cell.from_hidden.weight": 0.5}
    for name, parameter in layer.named_parameters():
        nn.init.constant_(parameter, weights[name])
    layer.given = iter([1.0, 3.0, 7.0])
    said, _ = layer(torch.tensor([[[1.0], [2.0], [4.0]]]))
    assert said.flatten().tolist() == [1.0, 2.5, 5.25]
    weight = layer.recurrent_weights()[0]
    (found,) = torch.autograd.grad(said[0, 2, 0], [weight])
    assert found.item() == 2.5 + 7.0 * 0.5 * (1.0 + 3.0 * 0.5 * 0)


def test_a_random_weight_is_0_or_1_over_its_probability_for_each_row() -> None:
    draw = RandomTruncation(1, 1, keep=0.8).weights(torch.zeros(5000, 1))
    first, second = draw(), draw()
    assert set(first.flatten().tolist()) == {0.0, 1.25}
    assert abs(first.mean().item() - 1) < 4 * (0.25 / 5000) ** 0.5
    assert not torch.equal(first, second)


@pytest.mark.parametrize("cell", [ElmanCell, pytest.param(LSTMCell, marks=pytest.mark.slow)])
def test_randomised_truncation_is_unbiased(cell: LayerFactory) -> None:
    """|z| < 4 for every parameter of a language model over 2,000 draws against the full gradient."""
    draws, tokens = 2000, torch.tensor([[0, 3, 1, 4, 1, 2]])

    def model(layer: LayerFactory) -> LanguageModel:
        torch.manual_seed(2)
        return LanguageModel(5, 2, [2, 2], layer, initialisation="uniform").double()

    def gradient(module: LanguageModel) -> Tensor:
        loss = module.head.loss(module(tokens[:, :-1]).hidden, tokens[:, 1:], None).total
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(module.parameters()))])

    full, cut = gradient(model(cell)), model(partial(RandomTruncation, cell=cell, keep=0.7))
    found = torch.stack([gradient(cut) for _ in range(draws)])
    error, deviation = found.mean(dim=0) - full, found.std(dim=0)
    same = deviation < 1e-12
    assert torch.allclose(found.mean(dim=0)[same], full[same])  # the head, and what reads the last token alone
    assert (~same).float().mean() > 0.5
    assert float((error / deviation)[~same].abs().max()) * draws**0.5 < 4


def test_in_evaluation_nothing_is_drawn() -> None:
    layer, x = RandomTruncation(INPUT, HIDDEN, GRUCell, keep=0.5).eval(), torch.randn(BATCH, STEPS, INPUT)
    before = torch.get_rng_state()
    torch.testing.assert_close(gradients(layer, x), gradients(layer.cell, x))
    assert torch.equal(torch.get_rng_state(), before)


def test_it_stands_around_cells_that_draw_a_mask_for_a_pass() -> None:
    layer = RegularTruncation(INPUT, HIDDEN, partial(RecurrentDropoutLSTM, hidden=0.5), steps=2)
    torch.manual_seed(1)
    said, _ = layer(x := torch.randn(BATCH, STEPS, INPUT))
    torch.manual_seed(1)
    torch.testing.assert_close(said, layer.cell(torch.randn(x.shape))[0])


@pytest.mark.parametrize("kind", [RegularTruncation, RandomTruncation])
def test_a_language_model_trains_with_it_as_its_cell(
    make_data: Callable[..., LanguageData], make_trainer: Callable[..., Trainer], kind: LayerFactory
) -> None:
    data = make_data(["a b c d e f"] * 20, lanes=2, steps=10)
    model = LanguageModel(data.vocab_size, 4, [4, 4], kind, optimizer=partial(torch.optim.Adam, lr=0.05))
    trainer = make_trainer(max_epochs=3)
    trainer.fit(model, data)
    assert trainer.callback_metrics["train/ppl_epoch"] < 7


def test_wrong_settings_are_told() -> None:
    with pytest.raises(ValueError, match="got steps=0"):
        RegularTruncation(INPUT, HIDDEN, steps=0)
    with pytest.raises(ValueError, match=r"a probability above 0, got 0\.0"):
        RandomTruncation(INPUT, HIDDEN, keep=0.0)
    with pytest.raises(TypeError, match=r"give it a layer that has steps, .* not Bidirectional"):
        RandomTruncation(INPUT, HIDDEN, Bidirectional)


def test_a_weighted_gradient_leaves_the_numbers() -> None:
    x = torch.tensor([0.1, 0.3], requires_grad=True)
    y = with_gradient(x, torch.tensor([0.0, 1 / 0.7]))
    assert torch.equal(y, x)
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == pytest.approx([0, 1 / 0.7])
