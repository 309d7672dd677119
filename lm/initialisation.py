"""Weight initialisations by name."""

from typing import Literal, get_args

from torch import nn

from lm.layers import RecurrentLayer

Initialisation = Literal["default", "normal", "uniform", "uniform_embedding", "xavier", "xavier_per_gate", "orthogonal"]


def initialise(module: nn.Module, name: Initialisation) -> None:
    """Set the weights of a network and its head.

    - `default`: as every layer makes them, torch's way.
    - `normal`: all matrices N(0, 0.01), biases zero, as in networks written from scratch.
    - `uniform`: all matrices uniform in ±0.1, biases zero (Zaremba et al. 2014, §4.1, the medium and small models).
    - `uniform_embedding`: embeddings and what is tied to them uniform in ±0.1; all else stays, as the recurrent matrices and the
      head's zero bias (Merity et al. 2017, §5).
    - `xavier`: Xavier-uniform over each matrix as it is stored; gates stacked in one matrix count as its outputs,
      so that a fused GRU gets ±√(6/(input + 3·hidden)). Embeddings and biases stay.
    - `xavier_per_gate`: the same over each gate's own matrix: ±√(6/(input + hidden)) (Glorot & Bengio 2010, eq. 16).
    - `orthogonal`: each gate's recurrent matrix orthogonal (Saxe et al. 2014). All else stays.

    Raises:
        ValueError: if there is no such name.
    """
    if name not in get_args(Initialisation):
        raise ValueError(f"initialisation: there is no {name!r}, only {', '.join(get_args(Initialisation))}")
    layers = [layer for layer in module.modules() if isinstance(layer, RecurrentLayer)]
    recurrent = {id(weight) for layer in layers for weight in layer.recurrent_weights()}
    gates = {id(weight): layer.gates for layer in layers for weight in layer.input_weights() + layer.recurrent_weights()}
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}

    for path, parameter in module.named_parameters():
        if parameter.dim() < 2:
            if name in ("normal", "uniform") and "bias" in path:
                nn.init.zeros_(parameter)
        elif name == "normal":
            nn.init.normal_(parameter, std=0.01)
        elif name == "uniform" or (name == "uniform_embedding" and id(parameter) in embeddings):
            nn.init.uniform_(parameter, -0.1, 0.1)
        elif name == "xavier" and id(parameter) not in embeddings:
            nn.init.xavier_uniform_(parameter)
        elif name == "xavier_per_gate" and id(parameter) not in embeddings:
            for matrix in parameter.data.chunk(gates.get(id(parameter), 1)):
                nn.init.xavier_uniform_(matrix)
        elif name == "orthogonal" and id(parameter) in recurrent:
            for matrix in parameter.data.chunk(gates[id(parameter)]):
                nn.init.orthogonal_(matrix)
