"""Contestants in processes of their own: settings of one, such as those of the memory allocator, must not help another."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port

from datamodules.sources import Split
from experiments.benchmark.contestant import Contestant, Parallel

Make = Callable[[Parallel, int], Contestant]
"""Makes a contestant from the files and the seed."""


class Apart(Contestant):
    """A contestant that lives in a fresh process or several, which divide the threads of this one and die with it.

    Args:
        make: makes it there; a class or a partial of one.
        files: what it is trained on.
        seed: of weights, order and dropout.
        processes: ranks that it is trained on.

    Raises:
        Exception: whatever it raises there.
    """

    def __init__(self, make: Make, files: Parallel, seed: int, processes: int = 1) -> None:
        context = multiprocessing.get_context("spawn")
        # What Lightning asks of the environment of processes that it did not start itself.
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port())} if processes > 1 else {}
        threads = max(1, torch.get_num_threads() // processes)
        self.pipes, self.processes = [], []
        for rank in range(processes):
            pipe, there = context.Pipe()
            environment = meeting and {**meeting, "LOCAL_RANK": str(rank)}
            process = context.Process(target=serve, args=(there, environment, threads, make, files, seed), daemon=True)
            process.start()
            there.close()  # or the end of that process would not be noticed
            self.pipes.append(pipe)
            self.processes.append(process)
        self.name = self.answer()

    def train(self, epochs: int, batches: int | None) -> list[float]:
        """See Contestant."""
        speeds: list[float] = self.call("train", epochs, batches)
        return speeds

    def translate(self, split: Split, width: int) -> list[str]:
        """See Contestant."""
        texts: list[str] = self.call("translate", split, width)
        return texts

    def close(self) -> None:
        """End its processes, whose memory others may need."""
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join()

    def call(self, method: str, *arguments: Any) -> Any:
        """What a method of the contestant returns."""
        for pipe in self.pipes:
            pipe.send((method, arguments))
        return self.answer()

    def answer(self) -> Any:
        """The next thing that all of its processes say."""
        results = []
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            try:
                result, error = pipe.recv()
            except EOFError as end:
                process.join()
                raise RuntimeError(f"benchmark: the process of a model ended with status {process.exitcode}") from end
            if error is not None:
                raise error
            results.append(result)
        return results[0]


def serve(pipe: Connection, environment: dict[str, str], threads: int, make: Make, files: Parallel, seed: int) -> None:
    """Make the contestant, say its name, and do what is asked of it until nobody asks."""
    os.environ.update(environment)
    torch.set_num_threads(threads)
    try:
        contestant = make(files, seed)
        pipe.send((contestant.name, None))
        while True:
            method, arguments = pipe.recv()
            pipe.send((getattr(contestant, method)(*arguments), None))
    except EOFError:
        return
    except Exception as error:  # to be raised where it is waited for
        pipe.send((None, error))
