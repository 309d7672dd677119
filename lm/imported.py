"""AWD-LSTMs that other programs have trained."""

import re
from collections.abc import Mapping
from functools import partial

from torch import Tensor

from datamodules.tokenizers import Tokenizer
from lm.heads import LinearHead
from lm.layers import LSTM
from lm.module import LanguageModel
from lm.weight_drop import WeightDrop

RECURRENT = re.compile(r"(?:0\.)?rnns\.(\d+)\.(?:module\.)?((?:weight|bias)_[ih]h_l0)(_raw)?")
"""A weight of a layer; `_raw` is the one before weight drop, of which an older fastai keeps a dropped copy too."""
EMBEDDING = re.compile(r"(?:0\.)?encoder\.weight")
HEAD = re.compile(r"(?:1\.)?decoder\.(weight|bias)")
TIED_COPY = re.compile(r"(?:0\.)?encoder_dp\.emb\.weight")
"""fastai's embedding under the name of its dropout."""


def awd_lstm(weights: Mapping[str, Tensor], tokenizer: Tokenizer | None = None, weight_drop: float = 0.5) -> LanguageModel:
    """The language model of a state dict of salesforce/awd-lstm-lm's `RNNModel`, or of fastai's `AWD_LSTM` with its decoder.

    Its sizes are those of the weights. Embedding and head have a copy each; callbacks.WeightTying makes them one again.

    Args:
        weights: the state dict.
        tokenizer: of the words whose ids it was trained on; without one the model reads ids alone.
        weight_drop: rate of the recurrent matrices, should it be trained on.

    Raises:
        ValueError: if these are not the weights of an AWD-LSTM, or its vocabulary is not the tokenizer's.
    """
    named = our_names(weights)
    vocab_size, embedding_size = named["network.embedding.weight"].shape
    if tokenizer is not None and len(tokenizer) != vocab_size:
        raise ValueError(
            f"AWD-LSTM: its weights are for {vocab_size} words, and {len(tokenizer)} are listed: give the list it was trained on,"
            " in the order of its ids"
        )
    sizes = [named[name].shape[1] for name in recurrent_matrices(named)]
    head = partial(LinearHead, bias="head.bias" in named)
    model = LanguageModel(vocab_size, embedding_size, sizes, partial(WeightDrop, cell=LSTM, rate=weight_drop), head)
    try:
        model.load_state_dict(named)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"AWD-LSTM: the shapes of its weights do not fit each other ({reason}); the file is incomplete"
        ) from error
    model.tokenizer = tokenizer
    return model.eval()


def our_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names they have in a LanguageModel.

    Raises:
        ValueError: if there is one of another model, or one is missing.
    """
    named: dict[str, Tensor] = {}
    raw: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if found := RECURRENT.fullmatch(name):
            (raw if found[3] else named)[f"network.layers.{found[1]}.layer.rnn.{found[2]}"] = weight
        elif EMBEDDING.fullmatch(name):
            named["network.embedding.weight"] = weight
        elif found := HEAD.fullmatch(name):
            named[f"head.{found[1]}"] = weight
        elif not TIED_COPY.fullmatch(name):
            raise ValueError(f"AWD-LSTM: {name} is none of its weights; give the state dict of a language model of LSTMs")
    named |= raw
    for name in ("network.embedding.weight", *recurrent_matrices(named), "head.weight"):
        if name not in named:
            raise ValueError(f"AWD-LSTM: there is nothing to be {name}; give the state dict of the whole language model")
    return named


def recurrent_matrices(named: Mapping[str, Tensor]) -> list[str]:
    """What the hidden-to-hidden matrices of so many layers are called, of one at least."""
    layers = sum(name.endswith("weight_hh_l0") for name in named)
    return [f"network.layers.{index}.layer.rnn.weight_hh_l0" for index in range(max(1, layers))]
