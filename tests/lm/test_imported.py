"""AWD-LSTMs of other programs: state dicts of their layout, made here, say here what they said there."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from datamodules.recipes import Words
from lm.imported import awd_lstm
from lm.module import LanguageModel

VOCAB, EMBEDDING, HIDDEN, LANES, STEPS = 12, 5, 7, 3, 6

pytestmark = pytest.mark.usefixtures("seed")


class Theirs(nn.Module):
    """Embedding, three LSTMs of which the last is as wide as it, and a tied decoder, as both programs have them."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Embedding(VOCAB, EMBEDDING)
        sizes = [EMBEDDING, HIDDEN, HIDDEN, EMBEDDING]
        self.rnns = nn.ModuleList(nn.LSTM(a, b, batch_first=True) for a, b in itertools.pairwise(sizes))
        self.decoder = nn.Linear(EMBEDDING, VOCAB)
        self.decoder.weight = self.encoder.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x: Tensor = self.encoder(tokens)
        for rnn in self.rnns:
            x, _ = rnn(x)
        return torch.log_softmax(self.decoder(x), dim=-1)


def plain(model: Theirs) -> dict[str, Tensor]:
    """Without weight drop salesforce's state dict is this module's own."""
    return dict(model.state_dict())


def salesforce(model: Theirs) -> dict[str, Tensor]:
    """With weight drop each LSTM is `module` of a wrapper, and its recurrent matrix is called raw."""
    renamed = {}
    for name, weight in model.state_dict().items():
        first, _, last = name.rpartition(".")
        inner = f"{first}.module.{last}" if name.startswith("rnns") else name
        renamed[inner + "_raw" if last == "weight_hh_l0" else inner] = weight
    return renamed


def fastai(model: Theirs) -> dict[str, Tensor]:
    """The raw matrix belongs to the wrapper, a dropped copy of it to the LSTM; two parts are numbered."""
    renamed = {"0.encoder_dp.emb.weight": model.encoder.weight}
    for name, weight in model.state_dict().items():
        first, _, last = name.rpartition(".")
        if name.startswith("rnns"):
            if last == "weight_hh_l0":
                renamed[f"0.{first}.{last}_raw"] = weight
                weight = nn.functional.dropout(weight, 0.5)
            renamed[f"0.{first}.module.{last}"] = weight
        else:
            renamed[("1." if name.startswith("decoder") else "0.") + name] = weight
    return renamed


@pytest.mark.parametrize("layout", [plain, salesforce, fastai])
def test_it_says_what_the_original_says(layout: Callable[[Theirs], dict[str, Tensor]]) -> None:
    theirs, tokens = Theirs(), torch.randint(VOCAB, (LANES, STEPS))
    ours = awd_lstm(layout(theirs))
    assert isinstance(ours, LanguageModel)
    torch.testing.assert_close(ours.head.log_prob(ours(tokens).hidden), theirs(tokens))
    assert ours.arguments["layer_sizes"] == [HIDDEN, HIDDEN, EMBEDDING]
    assert not torch.allclose(ours.train()(tokens).hidden, ours.eval()(tokens).hidden)  # weights drop again


def test_weights_of_something_else_are_refused_by_name() -> None:
    weights = salesforce(Theirs())
    with pytest.raises(ValueError, match=r"AWD-LSTM: linear.weight is none of its weights"):
        awd_lstm({**weights, "linear.weight": torch.ones(1)})
    with pytest.raises(ValueError, match=r"AWD-LSTM: there is nothing to be head.weight; give the state dict of the whole"):
        awd_lstm({name: weight for name, weight in weights.items() if "decoder" not in name})
    with pytest.raises(ValueError, match=r"AWD-LSTM: there is nothing to be network.layers.1.layer.rnn.weight_hh_l0; give the"):
        awd_lstm({name: weight for name, weight in weights.items() if "rnns.1" not in name})
    with pytest.raises(ValueError, match=r"AWD-LSTM: the shapes of its weights do not fit each other .*size mismatch"):
        awd_lstm({**weights, "rnns.1.module.bias_ih_l0": torch.ones(3)})


def test_a_vocabulary_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"AWD-LSTM: its weights are for 12 words, and 4 are listed"):
        awd_lstm(plain(Theirs()), Words().train(["one two"]))
