"""The parameters of a network by layer, from its input to its output, for training that treats layers apart."""

from collections.abc import Sequence

from torch import nn


def parameters_by_layer(module: nn.Module, layers: Sequence[nn.Module]) -> list[list[nn.Parameter]]:
    """The parameters of each layer, every one once; layers without any are left out.

    Args:
        module: what the layers are parts of; its parameters that are in none of them belong to the last.
        layers: from the input to the output. A parameter that several share belongs to the last of these, so that a head which is
            tied to the embedding learns as a head does.
    """
    owners = dict.fromkeys(module.parameters(), len(layers) - 1)
    for index, layer in enumerate(layers):
        owners |= dict.fromkeys(layer.parameters(), index)
    groups = [[parameter for parameter, owner in owners.items() if owner == index] for index in range(len(layers))]
    return [group for group in groups if group]
