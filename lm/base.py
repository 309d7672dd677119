"""What every model of a sequence shares: optimizer, loss terms, carried state, and checkpoints that stand alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric

from datamodules.tokenizers import Tokenizer
from lm.checkpoint_file import read_checkpoint
from lm.continuation import (
    all_lanes,
    generators,
    of_all_ranks,
    own_lanes,
    restore_generators,
    restore_totals,
    seed_anew,
    totals,
)
from lm.layer_groups import parameters_by_layer
from lm.matching import TRAINING_ARGUMENTS, check_same_vocabulary, check_tying, check_weights
from lm.network import NetworkState, RNNOutput
from lm.precision import wide
from lm.rebuild import by_name, describe, rebuild, trusted
from lm.schedule import Schedule

LossTerm = Callable[[RNNOutput], Tensor]
OptimizerFactory = Callable[[Iterable[Any]], Optimizer]


class NonFiniteLossError(RuntimeError):
    """The loss became nan or infinite; the last checkpoint is from before."""


class SequenceModule(LightningModule):
    """A LightningModule over a recurrent network.

    Args:
        optimizer: makes the optimizer from the parameters, once callbacks have tied theirs; None where no gradient is followed.
        schedule: the learning-rate schedule; None for a constant rate.

    Attributes:
        BEST: the logged metric that says which weights are the best, and whether the lowest or the highest is.
        TOKENIZERS: names of the attributes of this module, and of its data, that hold tokenizers. They are None where the module
            was fed tensors alone.
        arguments: what the module was built with, as plain data, for its checkpoints.
        loss_terms: what callbacks add to the task's loss, each logged under its own name.
        train_metrics: of the epoch of training so far; a subclass's, whose states are sums.
    """

    BEST: ClassVar[tuple[str, Literal["min", "max"]]] = ("val/ppl", "min")
    TOKENIZERS: ClassVar[tuple[str, ...]] = ("tokenizer",)
    arguments: dict[str, Any]
    train_metrics: Metric

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keep the arguments of the outermost constructor, whatever class it belongs to."""
        module = super().__new__(cls)
        arguments: dict[str, Any] = {}
        for name, value in by_name(cls, args, kwargs).items():
            try:
                arguments[name] = describe(value, f"{cls.__name__}.{name}")
            except ValueError:
                if name not in TRAINING_ARGUMENTS:  # those a checkpoint can do without
                    raise
        module.__dict__["arguments"] = arguments
        return module

    def __init__(self, optimizer: OptimizerFactory | None, schedule: Schedule | None = None) -> None:
        super().__init__()
        self.make_optimizer = optimizer
        self.schedule = schedule
        for name in self.TOKENIZERS:
            setattr(self, name, None)
        self.loss_terms: dict[str, LossTerm] = {}
        self.states: dict[tuple[str, int], NetworkState] = {}
        self.saved_generators: list[dict[str, Any]] | None = None  # from a restored checkpoint to the first batch

    # Loss terms

    def add_loss_terms(self, terms: Mapping[str, LossTerm]) -> None:
        """Add terms to the training loss.

        Raises:
            ValueError: if a term of that name is there already, or nothing follows the gradient of a loss.
        """
        if self.make_optimizer is None:
            raise ValueError(f"loss terms: {', '.join(sorted(terms))} would change nothing, for this model follows no gradient")
        if taken := terms.keys() & self.loss_terms.keys():
            raise ValueError(f"loss terms: {', '.join(sorted(taken))} is there already; list the callback that adds it once")
        self.loss_terms.update(terms)

    def remove_loss_terms(self, terms: Mapping[str, LossTerm]) -> None:
        """Take terms away again."""
        for name in terms:
            self.loss_terms.pop(name, None)

    def regularized(self, loss: Tensor, output: RNNOutput) -> Tensor:
        """The task's loss plus every loss term.

        Raises:
            NonFiniteLossError: if the sum is nan or infinite; raised before any weight has changed.
        """
        terms = {name: term(output) for name, term in self.loss_terms.items()}
        for name, value in terms.items():
            self.log(f"train/{name}", value.detach(), batch_size=1)
        total = torch.stack([loss, *terms.values()]).sum() if terms else loss
        if not total.isfinite():
            raise NonFiniteLossError(
                f"loss: it is {total.item()} at step {self.global_step}; the weights of the last checkpoint are untouched:"
                " resume from it with a smaller learning rate or stronger gradient clipping"
            )
        return total

    # Carried state

    def carried_state(self, stage: str, loader: int = 0) -> NetworkState | None:
        """The state after the last window of a stream; None at its start."""
        state = self.states.get((stage, loader))  # a restored one is still where it was loaded
        return state and tuple(tuple(part.to(self.device) for part in layer) for layer in state)

    def carry_state(self, state: NetworkState, stage: str, loader: int = 0) -> None:
        """Keep a state for the next window: detached, in fp32 at least (a half-precision state does not fit an fp32 layer)."""
        self.states[stage, loader] = tuple(tuple(part.detach().to(wide(part.dtype)) for part in layer) for layer in state)

    def reset_state(self, stage: str) -> None:
        """Forget the states of a stage (`train`, `val`, `test`, `predict`), those of all its loaders."""
        self.states = {key: state for key, state in self.states.items() if key[0] != stage}

    def on_validation_epoch_start(self) -> None:
        """An evaluation starts from no past."""
        self.reset_state("val")

    def on_test_epoch_start(self) -> None:
        """An evaluation starts from no past."""
        self.reset_state("test")

    def on_predict_epoch_start(self) -> None:
        """A prediction starts from no past."""
        self.reset_state("predict")

    # Evaluation

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode, and afterwards the mode that was before."""
        was_training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)

    # Optimizer

    def configure_optimizers(self) -> Any:
        """Built here, after callbacks have tied weights, so that a shared parameter counts once."""
        if self.make_optimizer is None:
            return None
        schedule = self.schedule or Schedule()
        alike = schedule.layer_factor == 1
        optimizer = self.make_optimizer(self.parameters() if alike else schedule.groups(self.layer_groups()))
        return schedule.configure(optimizer, self.trainer)

    def layers_in_order(self) -> list[nn.Module]:
        """Its parts from the input to the output; what is in none of them belongs to the last."""
        return [self]

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """The parameters of each part, from the input to the output; a shared one is where it is last used, with the head."""
        return parameters_by_layer(self, self.layers_in_order())

    # Checkpoints

    def setup(self, stage: str) -> None:
        """Take the tokenizers of the data, unless this module came with others; forget the state of an earlier fit.

        Raises:
            ValueError: if the module's vocabulary is not the data's.
        """
        for name in self.TOKENIZERS:
            tokenizer = getattr(getattr(self.trainer, "datamodule", None), name, None)
            if tokenizer is not None:
                check_same_vocabulary(name, getattr(self, name), tokenizer)
                setattr(self, name, tokenizer)
        if stage == "fit":
            self.reset_state("train")

    def on_train_start(self) -> None:
        """Let each rank draw dropout of its own; Lightning seeds all alike."""
        if self.trainer.world_size > 1 and self.saved_generators is None:
            seed_anew(torch.initial_seed(), self.global_step, self.global_rank)

    def on_train_batch_start(self, batch: Any, batch_index: int) -> None:
        """In a resumed run, go on with the saved generators; what came before this may have drawn from the others."""
        if self.saved_generators is None:
            return
        saved, self.saved_generators = self.saved_generators, None
        if not restore_generators(saved, self.global_step, self.global_rank, self.device):
            rank_zero_info(
                f"resume: saved by {len(saved)} process(es), and this run has {self.trainer.world_size}:"
                " batches, states and weights go on as they were, and dropout is drawn anew"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write what rebuilds the module without its YAML or its data, and what a resumed run goes on with."""
        checkpoint["carried"] = {key[1]: all_lanes(state) for key, state in self.states.items() if key[0] == "train"}
        checkpoint["train_metrics"] = totals(self.train_metrics) if hasattr(self, "train_metrics") else {}
        checkpoint["generators"] = of_all_ranks(generators(self.device))
        checkpoint["module"] = {"class_path": f"{type(self).__module__}.{type(self).__qualname__}", "init_args": self.arguments}
        held = {name: getattr(self, name) for name in self.TOKENIZERS}
        checkpoint["tokenizers"] = {name: None if found is None else found.to_json() for name, found in held.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights that belong to another vocabulary or model; in training, go on where the checkpoint was.

        Raises:
            ValueError: if the vocabulary, the model or its tying is another, or the processes cannot share the lanes whose state
                it carries.
        """
        for name, text in checkpoint.get("tokenizers", {}).items():
            if text is not None and (tokenizer := getattr(self, name)) is not None:
                check_same_vocabulary(name, Tokenizer.from_json(text), tokenizer)
        training = self._trainer is not None and self.trainer.training
        check_weights(self, checkpoint["state_dict"], self.arguments, checkpoint.get("module", {}).get("init_args", {}))
        check_tying(self, checkpoint["state_dict"], training)
        if training:
            self.resume(checkpoint)

    def resume(self, checkpoint: dict[str, Any]) -> None:
        """Take back what belongs to this rank of what all ranks saved, which may have been more or fewer."""
        rank, world_size = self.global_rank, self.trainer.world_size
        for loader, state in checkpoint.get("carried", {}).items():
            self.states["train", loader] = own_lanes(state, rank, world_size)
        if rank == 0 and checkpoint.get("train_metrics"):
            restore_totals(self.train_metrics, checkpoint["train_metrics"])
        self.saved_generators = checkpoint.get("generators")

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, map_location: Any = "cpu", **changes: Any) -> Self:  # type: ignore[override]
        """A module from a checkpoint alone, with its tokenizers.

        Args:
            checkpoint_path: a file written by this class or a subclass of it.
            map_location: as in torch.load.
            changes: constructor arguments to use in place of the checkpoint's.

        Raises:
            FileNotFoundError, ValueError: if there is no such file, or it holds something else.
        """
        checkpoint = read_checkpoint(checkpoint_path, map_location)
        description = checkpoint["module"]
        target = trusted(description["class_path"])
        if not (isinstance(target, type) and issubclass(target, cls)):
            raise ValueError(f"checkpoint: {checkpoint_path} holds a {description['class_path']}, not a {cls.__name__}")
        module = target(**(rebuild(description["init_args"]) | changes))
        for name, text in checkpoint["tokenizers"].items():
            setattr(module, name, None if text is None else Tokenizer.from_json(text))
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"])
        return module
