import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from lm.batch_norm import BatchNormLSTMCell
from lm.cells import ElmanCell, GRUCell, LSTMCell, ResetFirstGRUCell, SharedMatrixCell, Zoneout
from lm.layers import GRU, LSTM, RecurrentLayer, State
from lm.mogrifier import Mogrifier
from lm.recurrent_dropout import RecurrentDropoutLSTM
from lm.step_linear import StepLinear, gathered
from lm.truncation import RegularTruncation
from lm.weight_drop import WeightDrop

LAYERS: dict[str, Callable[[int, int], RecurrentLayer]] = {
    "Elman": ElmanCell,
    "shared matrix": SharedMatrixCell,
    "GRU": GRUCell,
    "GRU, reset first": ResetFirstGRUCell,
    "LSTM": LSTMCell,
    "LSTM, layers normalised": partial(LSTMCell, layer_norm=True),
    "LSTM, batches normalised": BatchNormLSTMCell,
    "zoneout": Zoneout,
    "recurrent dropout": partial(RecurrentDropoutLSTM, hidden=0.2),
    "weight drop": partial(WeightDrop, cell=LSTMCell),
    "truncation": partial(RegularTruncation, steps=2),
    "Mogrifier": partial(Mogrifier, rank=2),
    "Mogrifier, weights dropped": partial(WeightDrop, cell=Mogrifier),
    "Mogrifier of a fused layer": partial(Mogrifier, cell=LSTM),
    "zoneout of a fused layer, weights dropped": partial(WeightDrop, cell=partial(Zoneout, cell=GRU)),
}
SIZE = 5


def gather_from(monkeypatch: pytest.MonkeyPatch, weights: float) -> None:
    monkeypatch.setattr("lm.step_linear.WORTH_GATHERING", weights)


def gradients(layer: RecurrentLayer, x: Tensor, state: State | None, lengths: Tensor | None) -> dict[str, Tensor | None]:
    """Of a sum in which every output and every part of the last state has a weight of its own."""
    torch.manual_seed(1)  # the same masks
    layer.zero_grad()
    x = x.clone().requires_grad_()
    y, after = layer(x, state, lengths)
    parts = torch.cat([part.flatten() for part in (y, *after)])
    (parts * torch.arange(len(parts)).sin()).sum().backward()  # type: ignore[no-untyped-call]
    return {"x": x.grad} | {name: weight.grad for name, weight in layer.named_parameters()}


@pytest.mark.parametrize("lengths", [None, torch.tensor([4, 1, 3])], ids=["full", "lengths"])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_that_autograd_adds_up(name: str, lengths: Tensor | None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name](SIZE, SIZE).double()
    x = torch.randn(3, 4, SIZE, dtype=torch.float64)
    state = tuple(torch.randn(1, 3, SIZE, dtype=torch.float64) for _ in range(layer.state_parts))
    gather_from(monkeypatch, 0)
    found = gradients(layer, x, state, lengths)
    gather_from(monkeypatch, float("inf"))
    expected = gradients(layer, x, state, lengths)
    assert found.keys() == expected.keys()
    for part in found:
        torch.testing.assert_close(found[part], expected[part], rtol=1e-10, atol=1e-12)


def test_each_gradient_is_of_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one graph: first that of the input alone, then that of the first steps alone, then that of all, twice."""
    cell, x = LSTMCell(SIZE, SIZE).double(), torch.randn(3, 4, SIZE, dtype=torch.float64, requires_grad=True)

    def several(worth: float) -> list[Tensor]:
        gather_from(monkeypatch, worth)
        y, _ = cell(x)
        weights: list[Tensor] = [*cell.parameters()]
        asked: list[tuple[Tensor, list[Tensor]]] = [
            (y.square().sum(), [x]),
            (y[:, :2].square().sum(), weights),
            (y.sum(), [x, *weights]),
        ]
        return [part for of, by in (*asked, asked[-1]) for part in torch.autograd.grad(of, by, retain_graph=True)]

    for ours, expected in zip(several(0), several(float("inf")), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


def test_in_half_precision_the_gradient_is_no_sum_of_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 steps add up to what full precision has, better than autograd, whose every sum is rounded to 8 bits."""
    torch.manual_seed(0)
    cell, x = ElmanCell(SIZE, 64), torch.randn(2, 200, SIZE)

    def gradient(weights: float, half: bool) -> Tensor:
        gather_from(monkeypatch, weights)
        cell.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y, _ = cell(x)
        (y.float() + 1).square().sum().backward()
        assert cell.from_hidden.weight.grad is not None
        assert cell.from_hidden.weight.grad.dtype == torch.float32
        return cell.from_hidden.weight.grad.clone()

    exact = gradient(float("inf"), half=False)
    ours, theirs = ((gradient(weights, half=True) - exact).norm() / exact.norm() for weights in (0, float("inf")))
    assert ours < 0.02
    assert ours < theirs


@pytest.mark.parametrize("steps", [1, 5])
def test_matrices_of_the_rows_of_a_batch_are_gathered_too(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, 7, SIZE, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(steps, 3, 2, SIZE, dtype=torch.float64, requires_grad=True)

    def found(weights: float) -> tuple[Tensor, ...]:
        gather_from(monkeypatch, weights)
        part = StepLinear(1, 1)
        with gathered(part, steps):
            products = torch.stack([part.product(x, matrices, None) for x in inputs])
            assert (part.products is not None) == (steps > 1 and weights == 0)
        loss = (products * torch.arange(products.numel()).sin().view_as(products)).sum()
        return products, *torch.autograd.grad(loss, [matrices, inputs])

    torch.testing.assert_close(found(0), found(float("inf")), rtol=1e-12, atol=1e-12)


def test_matrices_of_rows_are_multiplied_in_full_precision_also_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    gather_from(monkeypatch, 0)
    torch.manual_seed(0)
    matrices = torch.randn(3, 7, SIZE).bfloat16().requires_grad_()
    inputs = torch.randn(4, 3, 2, SIZE, requires_grad=True)
    part = StepLinear(1, 1)
    with torch.autocast("cpu", torch.bfloat16), gathered(part, 4):
        products = torch.stack([part.product(x, matrices, None) for x in inputs])
    expected = torch.einsum("tbri,boi->tbro", inputs, matrices.float())
    torch.testing.assert_close(products, expected)
    ours, theirs = (torch.autograd.grad(of.square().sum(), [matrices, inputs]) for of in (products, expected))
    torch.testing.assert_close(ours, theirs)


def test_a_map_taken_more_often_than_there_are_steps_or_of_other_shapes_has_its_whole_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gather_from(monkeypatch, 0)
    ours = StepLinear(3, 2).double()
    plain = nn.Linear(3, 2).double()
    plain.load_state_dict(ours.state_dict())
    inputs = [torch.randn(rows, 3, dtype=torch.float64) for rows in (4, 4, 1, 4)]
    with gathered(ours, 2):
        torch.stack([ours(x).square().sum() for x in inputs]).sum().backward()  # type: ignore[no-untyped-call]
    assert ours.products is None
    torch.stack([plain(x).square().sum() for x in inputs]).sum().backward()  # type: ignore[no-untyped-call]
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def gathers(linear: StepLinear, steps: int = 5) -> bool:
    with gathered(linear, steps):
        linear(torch.zeros(1, 3))
        return linear.products is not None


def test_what_needs_no_gradient_or_is_small_or_fails_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = StepLinear(3, 2)
    assert not gathers(linear)  # 6 weights
    gather_from(monkeypatch, 0)
    assert gathers(linear)
    assert not gathers(linear, steps=1)
    with torch.no_grad():
        assert not gathers(linear)
    assert not gathers(StepLinear(3, 2).requires_grad_(False))
    with pytest.raises(RuntimeError), gathered(linear, 5):
        linear(torch.randn(4, 7))
    assert linear.products is None
    assert copy.deepcopy(linear).state_dict().keys() == nn.Linear(3, 2).state_dict().keys()


def test_a_second_derivative_is_refused_and_not_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    gather_from(monkeypatch, 0)
    cell, x = ElmanCell(SIZE, SIZE), torch.randn(2, 3, SIZE, requires_grad=True)
    y, _ = cell(x)
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()  # type: ignore[no-untyped-call]
