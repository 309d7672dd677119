"""Weight tying: one matrix to read words and to write them."""

from lightning import Callback, LightningModule, Trainer
from torch import nn


class WeightTying(Callback):
    """Share one parameter between two modules (Press & Wolf 2017; Inan et al. 2017).

    Done in `setup`, before a checkpoint is restored and the optimizer is made, so that the parameter counts once. Several
    of these callbacks tie more than two modules, in any order.

    Args:
        source: path of the module whose weight is kept.
        target: path of the module that takes it as its own.

    Raises:
        ValueError: if a module has no weight, or the two have different shapes.
    """

    def __init__(self, source: str = "network.embedding", target: str = "head") -> None:
        self.source = source
        self.target = target

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tie."""
        kept, replaced = weight_of(pl_module, self.source), weight_of(pl_module, self.target)
        if kept.shape != replaced.shape:
            raise ValueError(
                f"WeightTying: {self.source} is {tuple(kept.shape)} and {self.target} {tuple(replaced.shape)};"
                f" set projection_size of the head to {kept.shape[1]}, or make the last layer as wide as the embedding"
            )
        for module in pl_module.modules():  # what was tied to the target before stays so
            for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
                if parameter is replaced:
                    setattr(module, name, kept)


def weight_of(module: nn.Module, path: str) -> nn.Parameter:
    """The weight of a submodule.

    Raises:
        ValueError: if there is no such submodule, or it has no weight.
    """
    try:
        weight = getattr(module.get_submodule(path), "weight", None)
    except AttributeError as error:
        raise ValueError(
            f"WeightTying: {type(module).__name__} has no {path}; it has {', '.join(dict(module.named_children()))}"
        ) from error
    if not isinstance(weight, nn.Parameter):
        raise ValueError(f"WeightTying: {path} has no weight to share; one-hot input has none: give the model an embedding_size")
    return weight
