"""The command line: LightningCLI, with the run's folder, the standard equipment of a run, and errors of one sentence."""

import logging
import os
import sys
import tempfile
import warnings
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar, RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only

from callbacks import HiddenStateReset, LearningCurve, RunReport, Throughput
from callbacks.checkpoint import BestCheckpoint, LastCheckpoint, to_resume_from
from callbacks.confusion import ConfusionMatrix
from callbacks.highest_loss import HighestLoss
from callbacks.interruption import StopOnSignal, StoppedError
from callbacks.predictions import WritePredictions
from callbacks.resumption import ResumedOptimizer
from callbacks.translation_output import WriteTranslations
from experiments.command import import_trusted
from experiments.errors import EXPLAINED, UsageError, sentence
from experiments.metrics_file import MetricsFile, OneCurve
from experiments.processes import (
    LOST,
    STOPPED,
    await_first,
    cluster_environment,
    lost_process,
    prepare_processes,
    refuse_sharding,
    write_outcome,
)
from experiments.processor import prepare_processor
from experiments.run_folder import RUN_FOLDER, new_folder
from lm.base import SequenceModule
from lm.checkpoint_file import AtomicCheckpointIO, read_checkpoint
from lm.classification import Classifier
from lm.rebuild import trusted
from mt.module import Seq2Seq


class SaveConfig(SaveConfigCallback):
    """Writes the whole configuration into the run's folder, and gives it to the loggers that do not write there."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See Lightning's SaveConfigCallback."""
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):
                logger.log_hyperparams(self.config.as_dict())


class ExperimentCLI(LightningCLI):
    """fit, validate, test and predict for a model and its data, each a class named in YAML."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The run's folder, and what a model learns from its data where both know of it."""
        parser.add_argument(
            "--run_folder", type=str | None, default=None, help="Where the run writes; by default runs/EXPERIMENT/DATE_TIME."
        )
        parser.add_argument(
            "--trust", type=str, default="", help="Modules of your own that a checkpoint may name, with commas between them."
        )
        parser.link_arguments("data.vocab_size", "model.init_args.vocab_size", apply_on="instantiate")
        parser.link_arguments("data.label_count", "model.init_args.label_count", apply_on="instantiate")
        for side in ("source", "target"):
            parser.link_arguments(f"data.{side}_vocab_size", f"model.init_args.{side}_vocab_size", apply_on="instantiate")
        parser.link_arguments("data.init_args.direction", "model.init_args.direction", apply_on="parse")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Let a checkpoint fill in the model where neither a config file nor a flag describes it.

        Raises:
            FileNotFoundError, ValueError: if the checkpoint is missing, or cannot describe a model that nothing else describes.
            UsageError: if an argument is wrong.
        """
        if "predict" in self._subcommand_parsers:
            self._subcommand_parsers["predict"].set_defaults({"return_predictions": False})  # they are written, and may be many
        subcommand = self._subcommand_parsers.get(sys.argv[1] if len(sys.argv) > 1 else "")
        self.unreadable: ValueError | None = None
        if subcommand and (path := value_of("--ckpt_path", sys.argv)) and path not in ("last", "best", "hpc"):
            import_trusted(value_of("--trust", sys.argv) or "")
            try:
                subcommand.set_defaults({"model": without_marks(read_checkpoint(path)["module"])})
            except ValueError as error:  # fine for a model of another kind, which the rest of the command line has to describe
                self.unreadable = error
        try:
            super().parse_arguments(parser, args)
        except (ArgumentError, TypeError, ValueError) as error:
            settings = [action.dest for action in subcommand._actions] if subcommand else []
            if self.unreadable and "required" in str(error):
                raise self.unreadable from error
            raise UsageError(sentence(error, settings)) from error

    def _parse_ckpt_path(self) -> None:
        """Lightning would let a checkpoint override flags here; `parse_arguments` has done it the other way round."""

    def before_instantiate_classes(self) -> None:
        """Choose the run's folder, and give it to what writes."""
        config = self.config[self.subcommand]
        files = [str(file) for file in config.get("config") or []]
        named = config.run_folder or os.environ.get(RUN_FOLDER)
        self.run_folder = Path(named or new_folder(files))
        os.environ[RUN_FOLDER] = str(self.run_folder)
        check_writable(self.run_folder)
        if config.get("ckpt_path") == "last":
            if named is None:
                raise UsageError("--ckpt_path last looks into the folder of a run: name it with --run_folder")
            found = to_resume_from(self.run_folder / "checkpoints")
            config.ckpt_path = None if found is None else str(found)
        config.trainer.default_root_dir = str(self.run_folder)
        for part in as_list(config.trainer.logger) + as_list(config.trainer.callbacks):
            arguments = part.get("init_args", {})
            if "save_dir" in arguments and arguments["save_dir"] is None:
                arguments["save_dir"] = str(self.run_folder)
            if "dirpath" in arguments and arguments["dirpath"] is None:
                arguments["dirpath"] = str(self.run_folder / "checkpoints")

    def after_instantiate_classes(self) -> None:
        """Refuse a checkpoint that cannot be one of this model."""
        if self.unreadable and isinstance(self.model, SequenceModule):
            raise self.unreadable

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer as configured, and the standard equipment it does not name itself."""
        config = self.config_init[self.subcommand]["trainer"]
        log = [] if config["logger"] is False else [MetricsFile(self.run_folder), *as_list(config["logger"])]
        configured = as_list(config["callbacks"])
        missing = [part for part, kind in self.equipment(config) if not any(serves_as(other, kind) for other in configured)]
        plugins = as_list(config["plugins"])
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpointIO())
        if not any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
            plugins += cluster_environment()
        refuse_sharding(config["strategy"])
        trainer = super().instantiate_trainer(logger=log, callbacks=configured + missing, plugins=plugins, **kwargs)
        await_first(trainer)
        return trainer

    def equipment(self, trainer: Any) -> list[tuple[Callback, type[Callback]]]:
        """What a run has unless its config has one of that kind, or the Trainer's settings turn it off."""
        best = self.model.BEST if isinstance(self.model, SequenceModule) else SequenceModule.BEST
        parts: list[tuple[Callback, type[Callback]]] = [(RunReport(best[0]), RunReport)]
        parts += [(part, type(part)) for part in (LearningCurve(), OneCurve())]
        if isinstance(self.model, SequenceModule):
            parts += [(part, type(part)) for part in (HiddenStateReset(), Throughput(), ResumedOptimizer())]
        written = WriteTranslations() if isinstance(self.model, Seq2Seq) else WritePredictions()
        parts += [(part, type(part)) for part in (written, ConfusionMatrix())]
        if isinstance(self.model, Classifier):
            parts.append((HighestLoss(), HighestLoss))
        if trainer["enable_progress_bar"] is not False:
            parts.append((RichProgressBar(), ProgressBar))
        if trainer["enable_checkpointing"] is not False:
            folder = self.run_folder / "checkpoints"
            parts += [(BestCheckpoint(folder), BestCheckpoint), (LastCheckpoint(folder), LastCheckpoint)]
            parts.append((StopOnSignal(), StopOnSignal))
        return parts


def serves_as(part: Callback, kind: type[Callback]) -> bool:
    """Whether a callback does what one of a kind does; a ModelCheckpoint keeps the best, and by `save_last` the last."""
    if kind is BestCheckpoint:
        return isinstance(part, ModelCheckpoint) and not isinstance(part, LastCheckpoint)
    if kind is LastCheckpoint:
        return isinstance(part, LastCheckpoint) or bool(getattr(part, "save_last", False))
    return isinstance(part, kind)


def run(kind: type[ExperimentCLI] = ExperimentCLI) -> int:
    """Run the command line.

    Args:
        kind: what it does with its subcommand.

    Returns:
        0 if all went well, after an error that one sentence explains 1, or 2 for a wrong argument; after a signal that asked
        to stop, on the first process, 75; and 3 where another process is lost.
    """
    prepare_processor()
    prepare_processes()
    quiet()
    inherited = os.environ.get(RUN_FOLDER)
    try:
        kind(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,  # its --optimizer would be made before callbacks tie weights
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=1,
            parser_kwargs={"exit_on_error": False},
        )
    except StoppedError as stop:
        return stopped(stop)
    except Exception as error:
        return failed(error)
    finally:
        if inherited is None:
            os.environ.pop(RUN_FOLDER, None)
    return 0


def stopped(stop: StoppedError) -> int:
    """Say how to go on; the exit status. The first process alone has more to say than 0, or it would be killed while it ends."""
    if getattr(rank_zero_only, "rank", 0):
        return 0
    write_outcome("stopped")
    again = f"the same command with --run_folder {os.environ[RUN_FOLDER]} --ckpt_path last"
    print(f"{stop}; {again} goes on from there", file=sys.stderr)
    return STOPPED


def failed(error: Exception) -> int:
    """Say why in one sentence; the exit status. A bug, which no sentence explains, is raised again."""
    if told := lost_process(error):
        print(f"error: {told}", file=sys.stderr)
        return LOST
    write_outcome("failed")
    if sys.flags.dev_mode or not isinstance(error, EXPLAINED) or (told := sentence(error)) is None:
        raise error
    print(f"error: {told}", file=sys.stderr)
    return 2 if isinstance(error, UsageError) else 1


def quiet() -> None:
    """Leave out what Lightning says at every start and nobody here can act on."""
    for message in (
        ".*LeafSpec.*",
        ".*does not have many workers.*",
        "Total length of `list`.*",
        ".*smaller than the logging interval.*",
        ".*dirpath has changed.*",
        ".*infer the batch indices.*",
        ".*`srun` command is available.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*'train/clipped', ..., sync_dist=True.*",  # the gradients of all ranks are one
        ".*this fit will run with no optimizer.*",
    ):
        warnings.filterwarnings("ignore", message)
    said = ("Tip:", "TPU available", "to estimate number of stepping batches")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not any(words in record.getMessage() for words in said)
    )


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """The value given to a flag as `--flag value` or `--flag=value`; the last one if there are several."""
    found = None
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if argument == flag:
            found = following
        elif argument.startswith(f"{flag}="):
            found = argument.removeprefix(f"{flag}=")
    return found


def without_marks(description: Any) -> Any:
    """A checkpoint's description of a module as jsonargparse reads one: it knows by itself what is built and what a partial.

    Raises:
        ValueError: if it names a class that is not to be imported unseen.
    """
    if isinstance(description, dict):
        if "class_path" in description:
            trusted(description["class_path"])
        return {key: without_marks(value) for key, value in description.items() if key != "built"}
    return [without_marks(value) for value in description] if isinstance(description, list) else description


def as_list(value: Any) -> list[Any]:
    """A list of what may be none, one or several; `True` asks for the default, which is none of its own."""
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list) else [value]


def check_writable(folder: Path) -> None:
    """Make the folder of a run, and a file in it for a moment.

    Raises:
        OSError: if that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"run folder: {folder} cannot be written ({error.strerror}): name another with --run_folder") from error
