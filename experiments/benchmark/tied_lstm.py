"""A tied LSTM of two layers of 200 units, without dropout: ours, and as a person would write it."""

from functools import partial

import torch
from lightning import seed_everything
from torch import Tensor, nn

from experiments.benchmark.alternation import Speed, compare, text_data
from experiments.benchmark.plain import PlainLoop, Reading
from lm import LanguageModel
from lm.layers import LSTM

HIDDEN, LAYERS, LEARNING_RATE = 200, 2, 0.002


class PlainLSTM(nn.Module):
    """The model in torch modules. From the same weights both compute the same numbers, apart from rounding.

    Args:
        vocab_size: entries of the vocabulary.
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, HIDDEN)
        self.lstm = nn.LSTM(HIDDEN, HIDDEN, LAYERS, batch_first=True)
        self.decoder = nn.Linear(HIDDEN, vocab_size)
        self.decoder.weight = self.embedding.weight

    def start_from(self, model: LanguageModel) -> None:
        """Take the weights of an untrained model, so that both set out from one place."""
        weights = model.state_dict()
        own = {"embedding.weight": weights["network.embedding.weight"], "decoder.weight": weights["network.embedding.weight"]}
        for layer in range(LAYERS):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                own[f"lstm.{name}_l{layer}"] = weights[f"network.layers.{layer}.rnn.{name}_l0"]
        self.load_state_dict(own | {"decoder.bias": weights["head.bias"]})

    def forward(self, tokens: Tensor, state: tuple[Tensor, Tensor] | None) -> Reading:
        """Tokens `(batch, time)` and the state before them."""
        hidden, (last, memory) = self.lstm(self.embedding(tokens), state)
        return Reading(self.decoder(hidden), (last.detach(), memory.detach()))


def tied_lstm(text: str | None, runs: int, tokens: int | None, rate: float) -> list[Speed]:
    """Train both for some epochs in turn; see experiments.benchmark.language."""
    seed_everything(1, verbose=False)
    data = text_data(text, lanes=20, steps=35, tokens=tokens)
    optimizer = partial(torch.optim.AdamW, lr=LEARNING_RATE)
    model = LanguageModel(data.vocab_size, HIDDEN, [HIDDEN] * LAYERS, LSTM, initialisation="uniform", optimizer=optimizer)
    plain = PlainLSTM(data.vocab_size)
    plain.start_from(model)
    return compare(model, data, [PlainLoop(plain, optimizer(plain.parameters()), data)], runs, rate)
