"""Find a learning rate for an experiment: `python -m experiments.find_learning_rate --config FILE`, with the flags of a run."""

import sys
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser

from callbacks import (
    NTASGD,
    CheckpointAverage,
    DrawForecasts,
    GradientFlow,
    HiddenStateReset,
    SampleText,
    SampleTranslations,
)
from callbacks.learning_rate_finder import LearningRateFinder
from experiments.cli import ExperimentCLI, as_list, run
from experiments.errors import UsageError
from lm.base import NonFiniteLossError

AFTER_TRAINING = (
    Checkpoint,
    CheckpointAverage,
    DrawForecasts,
    EarlyStopping,
    GradientFlow,
    NTASGD,
    SampleText,
    SampleTranslations,
)
"""Callbacks of an experiment that keep or look at what a model has learned, or wait for a validation."""

WITHOUT_END = {
    "max_epochs": -1,
    "max_steps": -1,
    "min_epochs": None,
    "min_steps": None,
    "max_time": None,
    "limit_val_batches": 0,
    "num_sanity_val_steps": 0,
    "enable_checkpointing": False,
}
"""Settings of a Trainer that the finder ends, and that validates and keeps nothing."""


class RateFinderCLI(ExperimentCLI):
    """A run of an experiment in which a LearningRateFinder has the place of the schedule."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Those of a run, and those of the finder."""
        super().add_arguments_to_parser(parser)
        parser.add_lightning_class_args(LearningRateFinder, "finder")

    def before_instantiate_classes(self) -> None:
        """Refuse to go on from the middle of a schedule."""
        if self.config[self.subcommand].get("ckpt_path"):
            raise UsageError("--ckpt_path goes on with a schedule; for trained weights give the experiment a callbacks.StartFrom")
        super().before_instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A Trainer that ends with the finder, and keeps and logs nothing."""
        self.save_config_callback = None
        config = self.config_init[self.subcommand]["trainer"]
        config["callbacks"] = [part for part in as_list(config["callbacks"]) if not isinstance(part, AFTER_TRAINING)]
        config["logger"] = False
        return super().instantiate_trainer(**WITHOUT_END, **kwargs)

    def equipment(self, trainer: Any) -> list[tuple[Callback, type[Callback]]]:
        """What a short run needs of a whole one's."""
        return [(part, kind) for part, kind in super().equipment(trainer) if kind in (HiddenStateReset, ProgressBar)]

    def fit(self, **arguments: Any) -> None:
        """Run; where the loss becomes no number, the finder has what it needs."""
        try:
            self.trainer.fit(**arguments)
        except NonFiniteLossError:
            return


def main() -> None:
    """Train as `experiments.run fit` does, but for the schedule and the end."""
    sys.argv.insert(1, "fit")
    sys.exit(run(RateFinderCLI))


if __name__ == "__main__":
    main()
