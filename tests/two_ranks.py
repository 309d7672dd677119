"""A function run by two ranks, real processes that meet over gloo."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from torch.multiprocessing.spawn import spawn


def bare_trainer(ranks: int, **settings: Any) -> Trainer:
    """A Trainer on processors that says and writes nothing."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    strategy = "auto" if ranks == 1 else "ddp"
    return Trainer(accelerator="cpu", devices=ranks, num_sanity_val_steps=0, **{"strategy": strategy, **quiet, **settings})


def on_two_ranks(function: Callable[..., Any], *arguments: Any, folder: Path) -> list[Any]:
    """What each rank's call returns; files in the folder carry it here."""
    spawn(rank, (function, arguments, folder, find_free_network_port()), nprocs=2)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"rank{number}.pt") for number in range(2)]


def rank(number: int, function: Callable[..., Any], arguments: tuple[Any, ...], folder: Path, port: int) -> None:
    """One of them; the environment is what Lightning reads to learn that somebody else has started it."""
    os.environ |= {"LOCAL_RANK": str(number), "NODE_RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": str(port)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    warnings.simplefilter("ignore")
    torch.save(function(*arguments), folder / f"rank{number}.pt")
