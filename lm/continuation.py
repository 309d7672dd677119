"""What a run has to keep beside weights and optimizer to go on as if it had never stopped, on as many ranks as before or others.

All of these are collective: every rank calls them together, and all get what is to be saved.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from lm.network import NetworkState


def ranks() -> int:
    """Processes of this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def of_all_ranks(value: Any) -> list[Any]:
    """What each rank gives, by rank."""
    values = [value]
    if ranks() > 1:
        values = [None] * ranks()
        dist.all_gather_object(values, value)
    return values


def all_lanes(state: NetworkState) -> NetworkState:
    """The state of this rank's lanes, tensors `(directions, lanes, hidden)` -> that of the lanes of all, on the CPU."""
    parts: list[NetworkState] = of_all_ranks(tuple(tuple(part.cpu() for part in layer) for layer in state))
    return tuple(tuple(torch.cat(lanes, dim=1) for lanes in zip(*layers, strict=True)) for layers in zip(*parts, strict=True))


def own_lanes(state: NetworkState, rank: int, world_size: int) -> NetworkState:
    """The reverse: the part of one rank, of as many as there are now.

    Raises:
        ValueError: if the ranks cannot share the lanes evenly.
    """
    lanes = state[0][0].shape[1]
    if lanes % world_size:
        raise ValueError(f"resume: the checkpoint carries the state of {lanes} lanes, which {world_size} processes cannot share")
    own = lanes // world_size
    return tuple(tuple(part[:, rank * own : (rank + 1) * own] for part in layer) for layer in state)


def totals(metric: Metric) -> dict[str, Tensor]:
    """What a metric has gathered so far on all ranks, whose states are sums."""
    with metric.sync_context(should_sync=ranks() > 1):
        return {name: getattr(metric, name).detach().cpu().clone() for name in metric._defaults}


def restore_totals(metric: Metric, saved: Mapping[str, Tensor]) -> None:
    """Let a metric, on one of the ranks, go on from saved totals."""
    metric.reset()
    for name, value in saved.items():
        setattr(metric, name, value.to(metric.device))
    metric._update_count = 1


def generators(device: torch.device) -> dict[str, Any]:
    """The states of the random generators of this process; NumPy's global one stays out, for nothing here draws from it."""
    states: dict[str, Any] = {"seed": torch.initial_seed(), "cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_generators(saved: Sequence[Mapping[str, Any]], step: int, rank: int, device: torch.device) -> bool:
    """Let this rank draw on as the one of its number would have; where it cannot, because they are more or fewer, anew.

    Returns:
        whether it goes on.
    """
    if len(saved) != ranks():
        seed_anew(saved[0]["seed"], step, rank)
        return False
    torch.set_rng_state(saved[rank]["cpu"])
    if device.type == "cuda" and "cuda" in saved[rank]:
        torch.cuda.set_rng_state(saved[rank]["cuda"], device)
    return True


def seed_anew(*numbers: int) -> None:
    """Seed this process's generators from several numbers."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1)))
