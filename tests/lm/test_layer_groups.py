"""Parameters by layer: from the input to the output, each once."""

from functools import partial

import torch
from torch import nn

from lm import LanguageModel
from lm.heads import LinearHead
from lm.layer_groups import parameters_by_layer
from lm.layers import GRU
from lm.network import RecurrentNetwork
from mt import AttentionDecoder, Seq2Seq


def names(model: LanguageModel | Seq2Seq) -> list[list[str]]:
    """The parameters of each group by name."""
    paths = {parameter: path for path, parameter in model.named_parameters()}
    return [sorted(paths[parameter] for parameter in group) for group in model.layer_groups()]


def test_a_language_model_has_an_embedding_layers_and_a_head() -> None:
    groups = names(LanguageModel(20, 6, [8, 6]))
    assert groups[0] == ["network.embedding.weight"]
    assert [{name.rpartition(".rnn.")[0] for name in group} for group in groups[1:3]] == [{f"network.layers.{n}"} for n in (0, 1)]
    assert groups[3] == ["head.bias", "head.weight"]


def test_one_hot_input_has_no_group() -> None:
    assert len(names(LanguageModel(20, None, [8]))) == 2


def test_a_tied_weight_belongs_to_the_head_alone() -> None:
    model = LanguageModel(20, 6, [6])
    model.head.weight = model.network.embedding.weight
    groups = names(model)
    assert len(groups) == 2
    assert groups[-1] == ["head.bias", "network.embedding.weight"]


def test_a_translation_model_reads_embeds_writes_and_looks() -> None:
    network = partial(RecurrentNetwork, embedding_size=6, layer_sizes=[6, 6], cell=GRU)
    model = Seq2Seq(20, 30, network, partial(AttentionDecoder, network=network), partial(LinearHead, bias=False))
    groups = names(model)
    assert groups[0] == ["decoder.network.embedding.weight", "encoder.network.embedding.weight"]
    layers = [{name.rpartition(".rnn.")[0] for name in group} for group in groups[1:5]]
    assert layers == [{f"{side}.network.layers.{n}"} for side in ("encoder", "decoder") for n in (0, 1)]
    assert {name.split(".")[1] for name in groups[5]} == {"attention", "bridge", "join", "weight"}
    assert sorted(name for group in groups for name in group) == sorted(name for name, _ in model.named_parameters())


def test_what_is_in_no_layer_belongs_to_the_last_one() -> None:
    module = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    first, second, rest = module.parameters()
    groups = parameters_by_layer(module, [module[0], module[1]])
    assert [[id(parameter) for parameter in group] for group in groups] == [[id(first)], [id(second), id(rest)]]
    assert all(torch.is_tensor(parameter) for group in groups for parameter in group)
