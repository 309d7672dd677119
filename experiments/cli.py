"""The command line: LightningCLI, with the run's folder, the standard equipment of a run, and errors of one sentence."""

import logging
import os
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Sequence
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

from callbacks import HiddenStateReset, LearningCurve, RunReport, Throughput
from callbacks.predictions import WritePredictions
from lm.base import NonFiniteLossError, read_checkpoint

RUN_FOLDER = "UNROLL_RUN_FOLDER"
"""Environment variable through which the first process tells its run's folder to those it starts."""


class SaveConfig(SaveConfigCallback):
    """Writes the whole configuration into the run's folder and gives it to every logger."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See Lightning's SaveConfigCallback."""
        for logger in trainer.loggers:
            logger.log_hyperparams(self.config.as_dict())


class ExperimentCLI(LightningCLI):
    """fit, validate, test and predict for a model and its data, each a class named in YAML."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The run's folder, and what a model learns from its data."""
        parser.add_argument(
            "--run_folder", type=str | None, default=None, help="Where the run writes; by default runs/EXPERIMENT/DATE_TIME."
        )
        parser.link_arguments("data.vocab_size", "model.init_args.vocab_size", apply_on="instantiate")
        parser.link_arguments("data.init_args.direction", "model.init_args.direction", apply_on="parse")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Let a checkpoint fill in the model where neither a config file nor a flag describes it."""
        words = sys.argv[1:]
        path = value_of("--ckpt_path", words)
        if path and Path(path).is_file() and words[0] in self._subcommand_parsers:
            module = without_marks(read_checkpoint(path)["module"])
            self._subcommand_parsers[words[0]].set_defaults({"model": module})
        super().parse_arguments(parser, args)

    def _parse_ckpt_path(self) -> None:
        """Lightning would let a checkpoint override flags here; `parse_arguments` has done it the other way round."""

    def before_instantiate_classes(self) -> None:
        """Choose the run's folder, and give it to what writes."""
        config = self.config[self.subcommand]
        files = [str(file) for file in config.get("config") or []]
        self.run_folder = Path(config.run_folder or os.environ.get(RUN_FOLDER) or new_folder(files))
        os.environ[RUN_FOLDER] = str(self.run_folder)
        config.trainer.default_root_dir = str(self.run_folder)
        for part in as_list(config.trainer.logger) + as_list(config.trainer.callbacks):
            arguments = part.get("init_args", {})
            if "save_dir" in arguments and arguments["save_dir"] is None:
                arguments["save_dir"] = str(self.run_folder)
            if "dirpath" in arguments and arguments["dirpath"] is None:
                arguments["dirpath"] = str(self.run_folder / "checkpoints")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer as configured, and the standard equipment it does not name itself."""
        config = self.config_init[self.subcommand]["trainer"]
        log = [] if config["logger"] is False else [CSVLogger(self.run_folder, name="", version=""), *as_list(config["logger"])]
        configured = as_list(config["callbacks"])
        missing = [part for part in self.equipment() if not any(isinstance(other, type(part)) for other in configured)]
        return super().instantiate_trainer(logger=log, callbacks=configured + missing, **kwargs)

    def equipment(self) -> list[Callback]:
        """What every run has, unless its config has its own: checkpoints, progress, curve, report."""
        monitor = "val/ppl" if self.datamodule.val_dataloader() else None
        checkpoint = ModelCheckpoint(self.run_folder / "checkpoints", filename="best", monitor=monitor, save_last=True)
        return [HiddenStateReset(), Throughput(), LearningCurve(), RunReport(), WritePredictions(), RichProgressBar(), checkpoint]


def run() -> int:
    """Run the command line; 0 if all went well, 1 after an error that one sentence explains."""
    torch.set_flush_denormal(True)  # numbers this small change no result, and are slow on a CPU
    quiet()
    try:
        ExperimentCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=1,
            parser_kwargs={"exit_on_error": False},
        )
    except (ValueError, TypeError, FileNotFoundError, NonFiniteLossError, ArgumentError) as error:
        print(f"error: {sentence(str(root(error)))}", file=sys.stderr)
        return 1
    return 0


def quiet() -> None:
    """Leave out what Lightning says at every start and nobody here can act on."""
    for message in (
        ".*LeafSpec.*",
        ".*does not have many workers.*",
        "Total length of `list`.*",
        ".*smaller than the logging interval.*",
    ):
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "Tip:" not in record.getMessage())


def root(error: BaseException) -> BaseException:
    """What first went wrong: jsonargparse wraps the error of a constructor in one about types."""
    while error.__cause__ is not None and type(error).__module__.startswith(("jsonargparse", "builtins")):
        error = error.__cause__
    return error


def sentence(message: str) -> str:
    """What jsonargparse says of a wrong argument, without the types it tried and the whole value it was given."""
    lines = [line.strip() for line in message.splitlines()]
    kept = list(takewhile(lambda line: not line.startswith("Given value"), lines))
    noise = ("Does not validate", "Subtypes:", "Errors:", "- Expected a <class 'NoneType'>")
    return " ".join(line.removeprefix("- ") for line in kept if line and not line.startswith(noise))


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """The value given to a flag as `--flag value` or `--flag=value`; the last one if there are several."""
    found = None
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument == flag:
            found = following
        elif argument.startswith(f"{flag}="):
            found = argument.removeprefix(f"{flag}=")
    return found


def without_marks(description: Any) -> Any:
    """A checkpoint's description of a module as jsonargparse reads one: it knows by itself what is built and what a partial."""
    if isinstance(description, dict):
        return {key: without_marks(value) for key, value in description.items() if key != "built"}
    return [without_marks(value) for value in description] if isinstance(description, list) else description


def as_list(value: Any) -> list[Any]:
    """A list of what may be none, one or several; `True` asks for the default, which is none of its own."""
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list) else [value]


def new_folder(config_files: Sequence[str]) -> Path:
    """A folder that does not exist yet, named after the experiment and the time."""
    name = Path(config_files[0]).stem if config_files else "run"
    folder = Path("runs") / name / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    number = 2
    while folder.exists():
        folder = folder.with_name(f"{folder.name.split('.')[0]}.{number}")
        number += 1
    return folder
