"""Contestants in processes of their own: settings of one, such as those of the memory allocator, must not help another."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from datamodules.sources import Split
from experiments.benchmark.contestant import Contestant, Parallel

Make = Callable[[Parallel, int], Contestant]
"""Makes a contestant from the files and the seed."""


class Apart(Contestant):
    """A contestant that lives in a fresh process, and dies with this one.

    Args:
        make: makes it there; a class or a partial of one.
        files: what it is trained on.
        seed: of weights, order and dropout.

    Raises:
        Exception: whatever it raises there.
    """

    def __init__(self, make: Make, files: Parallel, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=serve, args=(there, make, files, seed), daemon=True)
        self.process.start()
        there.close()  # or the end of that process would not be noticed
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
        """End the process, whose memory others may need."""
        self.process.terminate()
        self.process.join()

    def call(self, method: str, *arguments: Any) -> Any:
        """What a method of the contestant returns."""
        self.pipe.send((method, arguments))
        return self.answer()

    def answer(self) -> Any:
        """The next thing that it says."""
        try:
            result, error = self.pipe.recv()
        except EOFError as end:
            self.process.join()
            raise RuntimeError(f"benchmark: the process of a model ended with status {self.process.exitcode}") from end
        if error is not None:
            raise error
        return result


def serve(pipe: Connection, make: Make, files: Parallel, seed: int) -> None:
    """Make the contestant, say its name, and do what is asked of it until nobody asks."""
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
