"""AWD-LSTM (Merity et al. 2017): ours, and as a person would write it from the paper."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from lightning import seed_everything
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from callbacks import RNNRegularization
from datamodules import LanguageData
from experiments.benchmark.alternation import Speed, compare, text_data
from experiments.benchmark.apart import Apart
from experiments.benchmark.plain import Other, PlainLoop, Reading
from lm import LanguageModel
from lm.weight_drop import WeightDrop


class Setting(NamedTuple):
    """What all rows share; by default that of the paper's model of WikiText-2, in batches of the size for Penn Treebank.

    Attributes:
        embedding_size: of a word, and of the last layer.
        hidden_size: of the other layers.
        layers: how many.
        embedding_dropout: rate of whole words.
        input_dropout: rate after the embedding; this and those below are locked.
        layer_dropout: rate between layers.
        output_dropout: rate after the last layer.
        weight_drop: rate of recurrent weights.
        alpha: weight of AR.
        beta: weight of TAR.
        learning_rate: of SGD.
        weight_decay: of SGD.
        lanes: windows in a batch.
        steps: tokens in a window.
    """

    embedding_size: int = 400
    hidden_size: int = 1150
    layers: int = 3
    embedding_dropout: float = 0.1
    input_dropout: float = 0.65
    layer_dropout: float = 0.2
    output_dropout: float = 0.4
    weight_drop: float = 0.5
    alpha: float = 2.0
    beta: float = 1.0
    learning_rate: float = 30.0
    weight_decay: float = 1.2e-6
    lanes: int = 20
    steps: int = 70

    @property
    def layer_sizes(self) -> list[int]:
        """Of each layer, from the input up."""
        return [self.hidden_size] * (self.layers - 1) + [self.embedding_size]


SETTING = Setting()


class PlainAWDLSTM(nn.Module):
    """The model in torch modules. Without dropout, from the same weights, it computes the numbers of ours, apart from rounding.

    Args:
        vocab_size: entries of the vocabulary.
        setting: sizes and rates.
    """

    def __init__(self, vocab_size: int, setting: Setting) -> None:
        super().__init__()
        self.setting = setting
        self.embedding = nn.Embedding(vocab_size, setting.embedding_size)
        sizes = [setting.embedding_size, *setting.layer_sizes]
        self.lstms = nn.ModuleList(nn.LSTM(below, own, batch_first=True) for below, own in pairwise(sizes))
        self.decoder = nn.Linear(setting.embedding_size, vocab_size)
        self.decoder.weight = self.embedding.weight

    def start_from(self, model: LanguageModel) -> None:
        """Take the weights of an untrained model, so that both set out from one place."""
        weights = model.state_dict()
        own = {"embedding.weight": weights["network.embedding.weight"], "decoder.weight": weights["network.embedding.weight"]}
        for layer in range(len(self.lstms)):
            for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
                own[f"lstms.{layer}.{name}"] = weights[f"network.layers.{layer}.layer.rnn.{name}"]
        self.load_state_dict(own | {"decoder.bias": weights["head.bias"]})

    def forward(self, tokens: Tensor, states: Sequence[tuple[Tensor, Tensor]] | None) -> Reading:
        """Tokens `(batch, time)` and the states of all layers before them."""
        setting = self.setting
        x = self.locked_dropout(self.embed(tokens), setting.input_dropout)
        rates = [setting.layer_dropout] * (setting.layers - 1) + [setting.output_dropout]
        raw, after = x, []
        for index, (lstm, rate) in enumerate(zip(self.lstms, rates, strict=True)):
            dropped = {"weight_hh_l0": functional.dropout(lstm.get_parameter("weight_hh_l0"), setting.weight_drop, self.training)}
            raw, (last, memory) = functional_call(lstm, dropped, (x, None if states is None else states[index]))
            after.append((last.detach(), memory.detach()))
            x = self.locked_dropout(raw, rate)
        penalty = setting.alpha * x.square().mean() + setting.beta * (raw[:, 1:] - raw[:, :-1]).square().mean()
        return Reading(self.decoder(x), after, penalty)

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings `(batch, time, features)`, all occurrences of a word dropped or none."""
        embedded: Tensor = self.embedding(tokens)
        if not self.training:
            return embedded
        kept = embedded.new_ones(self.embedding.num_embeddings, 1)
        return embedded * functional.dropout(kept, self.setting.embedding_dropout)[tokens]

    def locked_dropout(self, x: Tensor, rate: float) -> Tensor:
        """Dropout of `(batch, time, features)` with one mask for all steps."""
        return x * functional.dropout(torch.ones_like(x[:, :1]), rate) if self.training else x


class Neighbour(Apart, Other):
    """Another in a process of its own."""

    def train_epoch(self, epoch: int) -> None:
        """See Other."""
        self.call("train_epoch", epoch)

    def perplexity(self) -> float:
        """See Other."""
        found: float = self.call("perplexity")
        return found


Make = Callable[[Callable[[], LanguageData], Setting], Other]
"""Makes another model from what makes the data, and the setting."""


def awd_lstm(
    text: str | None, runs: int, tokens: int | None, rate: float, neighbours: Sequence[Make] = (), setting: Setting = SETTING
) -> list[Speed]:
    """Train all for some epochs in turn, neighbours in processes of their own; see experiments.benchmark.language."""
    seed_everything(1, verbose=False)
    read = partial(text_data, text, setting.lanes, setting.steps, tokens)
    data = read()
    model, plain = both(data, setting)
    others = [plain, *(Neighbour(partial(make, read, setting)) for make in neighbours)]
    return compare(model, data, others, runs, rate, [RNNRegularization(setting.alpha, setting.beta)])


def both(data: LanguageData, setting: Setting) -> tuple[LanguageModel, PlainLoop]:
    """Ours, and the plain loop with the same weights."""
    optimizer = partial(torch.optim.SGD, lr=setting.learning_rate, weight_decay=setting.weight_decay)
    model = LanguageModel(
        data.vocab_size,
        setting.embedding_size,
        setting.layer_sizes,
        partial(WeightDrop, rate=setting.weight_drop),
        embedding_dropout=setting.embedding_dropout,
        input_dropout=setting.input_dropout,
        layer_dropout=setting.layer_dropout,
        output_dropout=setting.output_dropout,
        initialisation="uniform_embedding",
        optimizer=optimizer,
    )
    plain = PlainAWDLSTM(data.vocab_size, setting)
    plain.start_from(model)
    return model, PlainLoop(plain, optimizer(plain.parameters()), data)
