"""Settings of the process for training on a CPU."""

import os
import subprocess
import sys

import pytest
import torch

FAULTS = """
import resource
import torch
from experiments.processor import prepare_processor

prepare_processor()
for step in range(40):
    if step == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, float(torch.tensor(1e-40) * 1.0))
"""


SHAPES = """
import torch
from experiments.processor import prepare_processor

prepare_processor()
for turn in range(2):
    print("turn", turn, flush=True)
    for length in range(1, 1102):  # more than are kept otherwise
        torch.ones(1, length).to_mkldnn().relu()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of another system")
def test_freed_memory_is_used_again_and_denormal_numbers_are_zero() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    faults, product = done.stdout.split()
    assert int(faults) < 2**24 * 4 // 4096  # the pages of one of the last 20 tensors
    assert float(product) == 0


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")  # type: ignore[no-untyped-call]
def test_kernels_are_compiled_once_for_each_shape() -> None:
    environment = os.environ | {"ONEDNN_VERBOSE": "profile_create"}
    environment.pop("ONEDNN_PRIMITIVE_CACHE_CAPACITY", None)  # of the tests' own process
    done = subprocess.run([sys.executable, "-c", SHAPES], env=environment, capture_output=True, text=True, check=True)
    first, second = done.stdout.split("turn 1")
    assert first.count("create:cache_miss") > 1024
    assert second.count("create:cache_hit") > 1024
    assert "create:cache_miss" not in second
