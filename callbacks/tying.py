"""Weight tying: one matrix to read words and to write them."""

from lightning import Callback, LightningModule, Trainer
from torch import nn


class WeightTying(Callback):
    """Share one parameter between two modules (Press & Wolf 2017; Inan et al. 2017).

    Modules that have several weights, such as an adaptive embedding and an adaptive softmax (Baevski & Auli 2019), share those of
    the same names.

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
        kept, replaced = weights_of(pl_module, self.source), weights_of(pl_module, self.target)
        for name, weight in kept.items():
            self.check(name, weight, replaced.get(name))
        for name, weight in kept.items():
            replace(pl_module, replaced[name], weight)

    def check(self, name: str, kept: nn.Parameter, replaced: nn.Parameter | None) -> None:
        """Refuse modules that are not made alike."""
        if replaced is None:
            raise ValueError(
                f"WeightTying: {self.source} has a {name} and {self.target} none; tie a table to a LinearHead or a"
                " MixtureOfSoftmaxesHead, and an AdaptiveEmbedding to an AdaptiveSoftmaxHead of the same cutoffs"
            )
        if kept.shape == replaced.shape:
            return
        source, target = (path if name == "weight" else f"{path}.{name}" for path in (self.source, self.target))
        remedy = f"set projection_size of the head to {kept.shape[1]}, or make the last layer as wide as the embedding"
        if name != "weight":
            remedy = "give both the same cutoffs and div_value, and the head the embedding's size as its projection_size"
        raise ValueError(f"WeightTying: {source} is {tuple(kept.shape)} and {target} {tuple(replaced.shape)}; {remedy}")


def weights_of(module: nn.Module, path: str) -> dict[str, nn.Parameter]:
    """What a submodule can share, by name: its weight, or those of its parts if it has none itself.

    Raises:
        ValueError: if there is no such submodule, or nothing in it has a weight.
    """
    try:
        part = module.get_submodule(path)
    except AttributeError as error:
        parts = [name for name, part in module.named_children() if next(part.parameters(), None) is not None]
        raise ValueError(f"WeightTying: {type(module).__name__} has no {path}; it has {', '.join(parts)}") from error
    weight = getattr(part, "weight", None)
    weights = {"weight": weight} if isinstance(weight, nn.Parameter) else dict(part.named_parameters(remove_duplicate=False))
    if not weights:
        raise ValueError(f"WeightTying: {path} has no weight to share; one-hot input has none: give the model an embedding_size")
    return weights


def replace(module: nn.Module, old: nn.Parameter, new: nn.Parameter) -> None:
    """Put a parameter in the place of another, wherever it is; so what was tied to that stays so."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False, remove_duplicate=False):
            if parameter is old:
                setattr(part, name, new)
