"""What is measured, in processes of its own: settings such as those of the memory allocator must not help another."""

import logging
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port

Make = Callable[[], Any]
"""Makes what will be asked: it has a name, and methods whose arguments and results can be pickled."""


class Apart:
    """Something that lives in a fresh process or in several, which divide the threads of this one and die with it.

    Args:
        make: makes it there; a class or a partial of one.
        processes: ranks of a training, to which Lightning will say that somebody else has started them.

    Raises:
        Exception: whatever it raises there.
    """

    def __init__(self, make: Make, processes: int = 1) -> None:
        context = multiprocessing.get_context("spawn")
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port())} if processes > 1 else {}
        threads = max(1, torch.get_num_threads() // processes)
        self.pipes, self.processes = [], []
        for rank in range(processes):
            pipe, there = context.Pipe()
            environment = meeting and {**meeting, "LOCAL_RANK": str(rank)}
            process = context.Process(target=serve, args=(there, environment, threads, make), daemon=True)
            process.start()
            there.close()  # or the end of that process would not be noticed
            self.pipes.append(pipe)
            self.processes.append(process)
        self.name: str = self.answer()

    def close(self) -> None:
        """End its processes, whose memory others may need."""
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join()

    def call(self, method: str, *arguments: Any) -> Any:
        """What one of its methods returns, of several processes in the first."""
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


def serve(pipe: Connection, environment: dict[str, str], threads: int, make: Make) -> None:
    """Make it, say its name, and do what is asked of it until nobody asks."""
    os.environ.update(environment)
    torch.set_num_threads(threads)
    for library in ("pytorch", "fabric"):  # each process would say how many there are
        logging.getLogger(f"lightning.{library}").setLevel(logging.WARNING)
    try:
        made = make()
        pipe.send((made.name, None))
        while True:
            method, arguments = pipe.recv()
            pipe.send((getattr(made, method)(*arguments), None))
    except EOFError:
        return
    except Exception as error:  # to be raised where it is waited for
        pipe.send((None, error))
