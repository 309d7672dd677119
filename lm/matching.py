"""Whether the weights and the vocabulary of a checkpoint fit a model, said in one sentence where torch lists every name."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.tokenizers import Tokenizer

TRAINING_ARGUMENTS = ("optimizer", "schedule")
"""Arguments of a module that make no weights."""


def check_weights(module: nn.Module, weights: Mapping[str, Tensor], own: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Refuse weights of other names or shapes.

    Args:
        module: the model.
        weights: the checkpoint's.
        own: what the model was built with, as plain data.
        saved: what the checkpoint's was built with.

    Raises:
        ValueError: if one weight does not fit; it names the first, and the settings that differ.
    """
    differing = [name for name in {**saved, **own} if name not in TRAINING_ARGUMENTS and saved.get(name) != own.get(name)]
    settings = ", ".join(f"{name}: {json.dumps(saved[name]) if name in saved else 'by default'}" for name in differing)
    remedy = (
        f"give the model the settings it was trained with{f' ({settings})' if settings else ''}, or leave them to the checkpoint"
    )
    expected = module.state_dict()
    for name in {**expected, **weights}:
        if name not in expected or name not in weights:
            raise ValueError(f"checkpoint: it has {'no' if name in expected else 'a'} {name}, unlike this model; {remedy}")
        if weights[name].shape != expected[name].shape:
            shapes = f"{list(weights[name].shape)} and this model's {list(expected[name].shape)}"
            raise ValueError(f"checkpoint: its {name} is {shapes}; {remedy}")


def check_tying(module: nn.Module, weights: Mapping[str, Tensor], training: bool) -> None:
    """Refuse weights that another tying has made, which would be loaded one over the other.

    Args:
        module: the model.
        weights: the checkpoint's, of the same names.
        training: whether the model goes on training; an optimizer's state is of as many parameters as it was saved for, while
            an evaluation may have two copies of one weight.

    Raises:
        ValueError: if weights are one here and differ in the checkpoint; in training, also if they were one there and are not.
    """
    here = shared(module.state_dict())
    for first, *others in here:
        for other in others:
            if not torch.equal(weights[first], weights[other]):
                raise ValueError(f"checkpoint: its {first} is not its {other}, and this run ties them; leave WeightTying out")
    for names in shared(weights) if training else []:
        if not any(set(names) <= set(together) for together in here):
            raise ValueError(f"checkpoint: its {' and '.join(names)} are one weight, and two in this run; add WeightTying")


def shared(weights: Mapping[str, Tensor]) -> list[list[str]]:
    """The names of each weight that has several."""
    names: dict[Any, list[str]] = {}
    for name, weight in weights.items():
        if weight.numel():
            names.setdefault((weight.untyped_storage().data_ptr(), weight.storage_offset(), weight.shape), []).append(name)
    return [together for together in names.values() if len(together) > 1]


def check_same_vocabulary(name: str, expected: Tokenizer | None, found: Tokenizer) -> None:
    """Refuse data whose tokens mean something else than a module's weights do.

    Raises:
        ValueError: if the two tokenizers differ.
    """
    if expected is not None and expected.to_json() != found.to_json():
        raise ValueError(
            f"vocabulary: the checkpoint's {name} has {len(expected)} entries, this data's another {len(found)};"
            " give the data the corpus and tokenizer that the checkpoint was trained on"
        )
