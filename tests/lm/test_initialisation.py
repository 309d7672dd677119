"""Weights by the name of their initialisation: ranges, deviations and what is left alone."""

from collections.abc import Iterator
from functools import partial
from math import sqrt
from typing import Literal, cast, get_args

import pytest
import torch
from torch import Tensor, nn

from lm.bidirectional import Bidirectional
from lm.cells import GRUCell, LSTMCell, ResetFirstGRUCell, SharedMatrixCell, Zoneout
from lm.initialisation import Initialisation, initialise
from lm.layers import GRU, LSTM, RNN, LayerFactory, RecurrentLayer
from lm.minimal import MinGRU, MinLSTM
from lm.module import LanguageModel
from lm.qrnn import QRNN
from lm.sru import SRU

VOCAB, EMBEDDING, HIDDEN = 50, 40, 60
GATES: list[tuple[LayerFactory, int]] = [
    (RNN, 1),
    (GRU, 3),
    (LSTM, 4),
    (GRUCell, 3),
    (ResetFirstGRUCell, 3),
    (LSTMCell, 4),
    (Zoneout, 4),
]

pytestmark = pytest.mark.usefixtures("seed")


def model(cell: LayerFactory, name: Initialisation) -> LanguageModel:
    return LanguageModel(VOCAB, EMBEDDING, [HIDDEN], cell, initialisation=name)


def only_layer(network: LanguageModel) -> RecurrentLayer:
    (layer,) = network.network.layers
    assert isinstance(layer, RecurrentLayer)
    return layer


def matrices(module: nn.Module) -> Iterator[Tensor]:
    return (parameter for parameter in module.parameters() if parameter.dim() == 2)


def biases(module: nn.Module) -> Iterator[Tensor]:
    return (parameter for path, parameter in module.named_parameters() if parameter.dim() == 1 and "bias" in path)


def fills(weight: Tensor, bound: float) -> bool:
    """Whether weights are uniform in ±bound: as far as that, no farther, with the deviation bound/√3."""
    return bool(0.95 * bound < weight.abs().max() <= bound * (1 + 1e-6)) and abs(weight.std().item() * sqrt(3) / bound - 1) < 0.1


@pytest.mark.parametrize("cell", [GRU, LSTMCell])
def test_normal_is_a_deviation_of_a_hundredth_and_no_bias(cell: LayerFactory) -> None:
    network = model(cell, "normal")
    for weight in matrices(network):
        assert abs(weight.std().item() / 0.01 - 1) < 0.1
        assert abs(weight.mean().item()) < 4 * 0.01 / sqrt(weight.numel())
    assert all(not bias.any() for bias in biases(network))


@pytest.mark.parametrize("cell", [GRU, LSTMCell])
def test_uniform_fills_a_tenth_and_has_no_bias(cell: LayerFactory) -> None:
    network = model(cell, "uniform")
    assert all(fills(weight, 0.1) for weight in matrices(network))
    assert all(not bias.any() for bias in biases(network))


def test_uniform_embedding_fills_a_tenth_and_leaves_the_rest() -> None:
    torch.manual_seed(4)
    plain = model(LSTM, "default")
    torch.manual_seed(4)
    network = model(LSTM, "uniform_embedding")
    for (path, weight), before in zip(network.named_parameters(), plain.parameters(), strict=True):
        assert fills(weight, 0.1) if path == "network.embedding.weight" else torch.equal(weight, before)


@pytest.mark.parametrize(("cell", "gates"), GATES)
def test_xavier_takes_stacked_gates_for_outputs(cell: LayerFactory, gates: int) -> None:
    network = model(cell, "xavier")
    layer = only_layer(network)
    (input_weight,), (hidden_weight,) = layer.input_weights(), layer.recurrent_weights()
    assert input_weight.shape == (gates * HIDDEN, EMBEDDING)
    assert fills(input_weight, sqrt(6 / (EMBEDDING + gates * HIDDEN)))
    assert fills(hidden_weight, sqrt(6 / (HIDDEN + gates * HIDDEN)))
    assert fills(cast(Tensor, network.head.weight), sqrt(6 / (HIDDEN + VOCAB)))


@pytest.mark.parametrize(("cell", "gates"), GATES)
def test_xavier_per_gate_takes_each_gate_by_itself(cell: LayerFactory, gates: int) -> None:
    network = model(cell, "xavier_per_gate")
    layer = only_layer(network)
    for part in layer.input_weights()[0].chunk(gates):
        assert fills(part, sqrt(6 / (EMBEDDING + HIDDEN)))
    for part in layer.recurrent_weights()[0].chunk(gates):
        assert fills(part, sqrt(6 / (HIDDEN + HIDDEN)))
    assert fills(cast(Tensor, network.head.weight), sqrt(6 / (HIDDEN + VOCAB)))


@pytest.mark.parametrize(
    ("cell", "gates", "count"), [(MinGRU, 2, 1), (MinLSTM, 3, 1), (QRNN, 3, 1), (partial(QRNN, window=2), 3, 2), (SRU, 4, 1)]
)
def test_gates_of_a_cell_without_recurrent_weights_are_told_apart_too(cell: LayerFactory, gates: int, count: int) -> None:
    layer = only_layer(model(cell, "xavier_per_gate"))
    weights = layer.input_weights()
    assert len(weights) == count
    for weight in weights:
        assert weight.shape == (gates * HIDDEN, EMBEDDING)
        assert all(fills(part, sqrt(6 / (EMBEDDING + HIDDEN))) for part in weight.chunk(gates))


@pytest.mark.parametrize("name", ["xavier", "xavier_per_gate", "orthogonal"])
def test_embeddings_and_biases_stay_as_torch_makes_them(name: Initialisation) -> None:
    torch.manual_seed(1)
    before = model(LSTM, "default")
    torch.manual_seed(1)
    after = model(LSTM, name)
    assert torch.equal(cast(Tensor, before.network.embedding.weight), cast(Tensor, after.network.embedding.weight))
    for bias, same in zip(biases(before), biases(after), strict=True):
        assert torch.equal(bias, same)


@pytest.mark.parametrize(("cell", "gates"), GATES)
def test_orthogonal_makes_each_gate_orthogonal_and_no_other_matrix(cell: LayerFactory, gates: int) -> None:
    torch.manual_seed(1)
    before = model(cell, "default")
    torch.manual_seed(1)
    after = model(cell, "orthogonal")
    layer = only_layer(after)
    (weight,) = layer.recurrent_weights()
    for part in weight.detach().chunk(gates):
        torch.testing.assert_close(part @ part.T, torch.eye(HIDDEN), rtol=0, atol=1e-5)
    for old, new in zip(matrices(before), matrices(after), strict=True):
        assert (new is weight) != torch.equal(old, new)


def test_orthogonal_reaches_both_directions_and_a_shared_matrix() -> None:
    for layer in (Bidirectional(EMBEDDING, HIDDEN, GRU), SharedMatrixCell(HIDDEN, HIDDEN)):
        initialise(layer, "orthogonal")
        for weight in layer.recurrent_weights():
            for part in weight.detach().chunk(layer.gates):
                torch.testing.assert_close(part @ part.T, torch.eye(HIDDEN), rtol=0, atol=1e-5)


def test_default_is_the_range_of_torchs_layers() -> None:
    bound = HIDDEN**-0.5
    for cell in (LSTM, LSTMCell):
        layer = only_layer(model(cell, "default"))
        assert all(fills(weight, bound) for weight in matrices(layer))
        assert all(fills(bias, bound) for bias in biases(layer))


@pytest.mark.parametrize("name", get_args(Initialisation))
def test_layer_normalisation_starts_as_the_identity(name: Literal["default"]) -> None:
    layer = LSTMCell(EMBEDDING, HIDDEN, layer_norm=True)
    initialise(layer, name)
    norms = [part for part in layer.modules() if isinstance(part, nn.LayerNorm)]
    assert len(norms) == 3
    for norm in norms:
        assert torch.equal(norm.weight, torch.ones_like(norm.weight))
        assert torch.equal(norm.bias, torch.zeros_like(norm.bias))


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="there is no 'he', only default, normal"):
        initialise(LSTM(2, 2), "he")  # type: ignore[arg-type]
