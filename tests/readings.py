"""What tests of evaluations share: a tiny model, a text of ids, and the readers of models without a Trainer's loop."""

import torch
from torch import Tensor

from datamodules.streams import CompleteStream
from lm.evaluation import Evaluation, Text
from lm.heads import LinearHead
from lm.module import LanguageModel

VOCAB = 9


def tiny(**settings: object) -> LanguageModel:
    """A model far from uniform, in evaluation mode."""
    model = LanguageModel(**{"vocab_size": VOCAB, "embedding_size": 5, "layer_sizes": [7, 6], **settings})  # type: ignore[arg-type]
    for parameter in model.parameters():
        parameter.data.mul_(2)
    return model.eval()


def text(length: int) -> Tensor:
    """Ids, some of them much more often than others."""
    return (torch.rand(length).square() * VOCAB).long()


def stream(tokens: Tensor, steps: int, lanes: int = 1) -> CompleteStream:
    return CompleteStream(tokens.numpy(), lanes, steps)


def nll_of(evaluation: Evaluation, model: LanguageModel, windows: CompleteStream) -> Tensor:
    """−log p of every target, `(lanes, targets)`."""
    read = evaluation.begin(model, Text("test", 0, windows))
    with torch.no_grad():
        return torch.cat([read(window).nll for window in windows], dim=1)


def logits(model: LanguageModel, hidden: Tensor) -> Tensor:
    assert isinstance(model.head, LinearHead)
    assert model.head.bias is not None
    return hidden @ model.head.weight.T + model.head.bias
