"""AWD-LSTM (Merity et al. 2017): its size, its loss and gradients against the equations, and where its dropouts reach."""

from functools import partial
from typing import Any, cast

import pytest
import torch
from lightning import Trainer
from torch import Tensor
from torch.nn.functional import cross_entropy

from callbacks import RNNRegularization, WeightTying
from datamodules.streams import Window
from lm.layers import FusedLayer
from lm.module import LanguageModel
from lm.weight_drop import WeightDrop

VOCAB, LANES, STEPS, ALPHA, BETA = 11, 3, 6, 2.0, 1.0

pytestmark = pytest.mark.usefixtures("seed")


def awd_lstm(
    vocab_size: int, embedding_size: int, hidden_size: int, weight_drop: float = 0.0, **dropouts: float
) -> LanguageModel:
    """Three layers of which the last is as wide as the embedding, which the head shares."""
    sizes = [hidden_size, hidden_size, embedding_size]
    cell = partial(WeightDrop, rate=weight_drop)
    model = LanguageModel(vocab_size, embedding_size, sizes, cell, initialisation="uniform_embedding", **cast(Any, dropouts))
    WeightTying().setup(cast(Trainer, None), model, "fit")
    model.log = model.log_dict = lambda *_, **__: None  # type: ignore[assignment, method-assign]
    return model


@pytest.mark.parametrize(("vocab_size", "expected"), [(10_000, 24_221_600), (33_278, 33_556_078)])
def test_it_has_the_published_number_of_parameters(vocab_size: int, expected: int) -> None:
    with torch.device("meta"):
        model = awd_lstm(vocab_size, 400, 1150)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_embedding_and_recurrent_weights_start_as_published() -> None:
    model = awd_lstm(500, 60, 90)
    assert 0.095 < cast(Tensor, model.network.embedding.weight).abs().max().item() <= 0.1
    assert 0.95 * 90**-0.5 < recurrent(model)[0].abs().max().item() <= 90**-0.5
    assert not cast(Tensor, model.head.bias).any()


def recurrent(model: LanguageModel) -> list[Tensor]:
    """The hidden-to-hidden matrix of each layer."""
    return [layer.recurrent_weights()[0] for layer in cast(list[WeightDrop], list(model.network.layers))]


def plain_step(model: LanguageModel, windows: list[Window]) -> tuple[Tensor, list[Tensor]]:
    """Loss of the last window with AR and TAR and the gradient of each parameter, from torch's primitives.

    The state of the window before it is carried, without a gradient.
    """
    names = [name for name, _ in model.named_parameters()]
    copies = {name: parameter.detach().clone().requires_grad_() for name, parameter in model.named_parameters()}
    embedding, bias = copies["network.embedding.weight"], copies["head.bias"]
    states: list[tuple[Tensor, Tensor]] = []
    for window in windows:
        x = embedding[window.tokens]
        after = []
        for index in range(3):
            w, u, b, c = (
                copies[f"network.layers.{index}.layer.rnn.{part}_l0"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            size = u.shape[1]
            h, m = states[index] if states else (torch.zeros(LANES, size), torch.zeros(LANES, size))
            said = []
            for x_t in x.unbind(1):
                i, f, g, o = torch.split(x_t @ w.T + b + h @ u.T + c, size, dim=1)
                m = torch.sigmoid(f) * m + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(m)
                said.append(h)
            after.append((h.detach(), m.detach()))
            x = torch.stack(said, 1)
        states = after
        nll = cross_entropy((x @ embedding.T + bias).flatten(0, 1), window.targets.flatten())
        loss = nll + ALPHA * (x**2).mean() + BETA * ((x[:, 1:] - x[:, :-1]) ** 2).mean()
    return loss, list(torch.autograd.grad(loss, [copies[name] for name in names]))


def test_a_training_step_is_that_of_the_equations_in_loss_and_every_gradient() -> None:
    model = awd_lstm(VOCAB, 5, 7)
    for parameter in model.parameters():
        parameter.data.mul_(3)  # where gates bend
    model.add_loss_terms(RNNRegularization(ALPHA, BETA).terms)
    text = torch.randint(VOCAB, (LANES, 2 * STEPS + 1))
    windows = [Window(text[:, at : at + STEPS], text[:, at + 1 : at + STEPS + 1]) for at in (0, STEPS)]
    expected, gradients = plain_step(model, windows)
    for window in windows:
        model.zero_grad()
        loss = model.training_step(window, 0)["loss"]
        loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-6)


class TestReach:
    """Each dropout alone."""

    def hidden(self, tokens: Tensor, model: LanguageModel) -> Tensor:
        output = model(tokens)
        assert isinstance(output.hidden, Tensor)
        return output.hidden.detach()

    def test_embedding_dropout_drops_whole_words_of_the_input_and_not_of_the_head(self) -> None:
        model = awd_lstm(400, 8, 9, embedding_dropout=0.5)
        tokens = torch.arange(400)[None].repeat(2, 2)
        embedded = model.network.embed(tokens)
        kept = (embedded != 0).any(dim=-1)
        assert torch.equal(kept[:, :400], kept[:, 400:])  # every occurrence in every row
        assert torch.equal(kept[0], kept[1])
        assert 140 < int(kept[0, :400].sum()) < 260
        weight = cast(Tensor, model.network.embedding.weight)
        torch.testing.assert_close(embedded[0, :400][kept[0, :400]], 2 * weight[kept[0, :400]])
        hidden = torch.randn(4, 8)
        torch.testing.assert_close(model.head.log_prob(hidden), torch.log_softmax(hidden @ weight.T, -1))
        assert not torch.equal((model.network.embed(tokens) != 0).any(dim=-1), kept)  # another time others

    @pytest.mark.parametrize("dropout", ["input_dropout", "layer_dropout", "output_dropout"])
    def test_locked_masks_stay_over_time_and_differ_between_sequences(self, dropout: str) -> None:
        model = awd_lstm(VOCAB, 40, 30, **{dropout: 0.5})
        seen: list[Tensor] = []
        layers = [model.network.input_dropout, *model.network.dropouts]
        for part in layers:
            part.register_forward_hook(lambda _, given, out: seen.append(out / given[0]))
        model(torch.randint(VOCAB, (LANES, STEPS)))
        expected = {"input_dropout": [0], "layer_dropout": [1, 2], "output_dropout": [3]}[dropout]
        for index, ratio in enumerate(seen):
            if index not in expected:
                torch.testing.assert_close(ratio, torch.ones_like(ratio))
                continue
            torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
            assert not torch.equal(ratio[0], ratio[1])
            assert set(ratio.round(decimals=3).flatten().tolist()) == {0.0, 2.0}

    def test_nothing_is_dropped_in_evaluation(self) -> None:
        settings = {"embedding_dropout": 0.5, "input_dropout": 0.5, "layer_dropout": 0.5, "output_dropout": 0.5}
        model = awd_lstm(VOCAB, 5, 7, weight_drop=0.5, **settings)
        bare = awd_lstm(VOCAB, 5, 7)
        bare.load_state_dict(model.state_dict())
        tokens = torch.randint(VOCAB, (LANES, STEPS))
        assert not torch.allclose(self.hidden(tokens, model), self.hidden(tokens, bare))
        assert torch.equal(self.hidden(tokens, model.eval()), self.hidden(tokens, bare.eval()))

    def test_weight_drop_reaches_the_recurrent_matrix_of_every_layer_alone(self) -> None:
        model = awd_lstm(VOCAB, 5, 7, weight_drop=0.5)
        for layer in cast(list[WeightDrop], list(model.network.layers)):
            inner = cast(FusedLayer, layer.layer)
            raw = [weight.detach().clone() for weight in inner.rnn.all_weights[0]]
            seen = layer.with_dropped_weights(lambda inner=inner: list(inner.rnn.all_weights[0]))()
            changed = [not torch.equal(weight, before) for weight, before in zip(seen, raw, strict=True)]
            assert changed == [False, True, False, False]
