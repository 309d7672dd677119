"""torchrun for `experiments.run`: `python -m experiments.torchrun --nproc-per-node 2 fit --config FILE --trainer.devices 2`.

What comes before `fit` is torchrun's own. A machine that does not answer is told of soon and in one sentence: torchrun by itself
waits for ten minutes, and prints pages.
"""

import socket
import sys
from argparse import Namespace
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous.utils import parse_rendezvous_endpoint
from torch.distributed.run import get_args_parser, get_rdzv_endpoint, run

from experiments.processes import LOST, PATIENCE, STOPPED, await_listener, lost_process

SUBCOMMANDS = ("fit", "validate", "test", "predict")
PORT = 29500
"""torchrun's own choice."""


def launch(words: Sequence[str]) -> int:
    """Start the processes of this machine, and wait for them.

    Args:
        words: of the command line.

    Returns:
        the exit status of the first process that has failed, 0 if none has; 75 after a signal; 3 where a machine does not answer.
    """
    settings = parsed(words)
    try:
        await_first_machine(settings)
        run(settings)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:  # which has said why by itself
        return error.get_first_failure()[1].exitcode
    except SignalException:
        return STOPPED
    except Exception as error:
        if (told := lost_process(error)) is None:
            raise
        print(f"error: {told}", file=sys.stderr)
        return LOST
    return 0


def parsed(words: Sequence[str]) -> Namespace:
    """The settings of torchrun, which waits as long as every process here does unless it is told otherwise."""
    start = next((place for place, word in enumerate(words) if word in SUBCOMMANDS), len(words))
    settings = get_args_parser().parse_args([*words[:start], "-m", "experiments.run", *words[start:]])
    settings.rdzv_conf = f"timeout={PATIENCE.seconds},join_timeout={PATIENCE.seconds},{settings.rdzv_conf}".rstrip(",")
    return settings


def await_first_machine(settings: Namespace) -> None:
    """Wait until the machine where all meet can be reached, unless it is this one.

    Raises:
        LostProcessError: if it cannot.
    """
    if settings.standalone or settings.nnodes in ("1", "1:1"):
        return
    host, port = parse_rendezvous_endpoint(get_rdzv_endpoint(settings), PORT)  # type: ignore[no-untyped-call]
    here = settings.node_rank == 0 if settings.rdzv_backend == "static" else is_own(host)
    if not here:
        sentence = "this machine waited for the one where all meet; start torchrun there too, or correct its address"
        await_listener((host, port), sentence)


def is_own(host: str) -> bool:
    """Whether a name is this machine's, for which it can open a port."""
    try:
        socket.create_server((host, 0)).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
