"""One step of an experiment, as its file describes it; without the command line, which parses longer than the step takes."""

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from lightning import Callback, LightningDataModule, LightningModule, Trainer


def one_step(path: Path, folder: Path, data: dict[str, Any] | None = None) -> Trainer:
    """The Trainer after a step of training and one of validation.

    Args:
        path: the experiment's file.
        folder: for everything that is written.
        data: settings of its data to change, nested as in the file.
    """
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    made = instantiate(LightningDataModule, merged(config["data"], {"init_args": {"cache": str(folder), **(data or {})}}))
    sizes = {name: getattr(made, name) for name in ("source_vocab_size", "target_vocab_size")}
    model = instantiate(LightningModule, merged(config["model"], {"init_args": sizes}))
    callbacks = [instantiate(Callback, part) for part in config["trainer"]["callbacks"]]
    quiet = {"accelerator": "cpu", "enable_model_summary": False, "enable_progress_bar": False}
    trainer = Trainer(**{**config["trainer"], **quiet, "callbacks": callbacks}, fast_dev_run=True, default_root_dir=folder)
    trainer.fit(model, made)
    return trainer


def instantiate(kind: type, part: dict[str, Any]) -> Any:
    """What a part of a configuration describes."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(kind, "part", required=True)
    return parser.instantiate(parser.parse_object({"part": part})).part


def merged(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A configuration with some of its settings changed."""
    both = {
        name: merged(config[name], value) if isinstance(config.get(name), dict) and isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return {**config, **both}
