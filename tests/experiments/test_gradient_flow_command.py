"""The picture of vanishing, exploding and clipped gradients."""

from pathlib import Path

import pytest
from commands import Call

from experiments.gradient_flow import show_flow


@pytest.mark.slow
def test_one_command_draws_every_network(call: Call, tmp_path: Path) -> None:
    small = ["--units", "4", "--steps", "6", "--rows", "3", "--training_steps", "3", "--file", tmp_path / "flow.png"]
    done = call(show_flow, *small)
    assert done.status == 0, done.err
    assert (tmp_path / "flow.png").is_file()
    told = [line.rpartition(":")[0] for line in done.out.splitlines()]
    for activation in ("tanh", "relu", "leaky_relu", "sigmoid"):
        for name in ("default", "orthogonal", "xavier_per_gate"):
            assert f"Elman, {activation}, {name}" in told
    assert "default initialisation, LSTM with batch normalisation" in told


def test_a_window_of_one_step_has_no_lag(call: Call) -> None:
    done = call(show_flow, "--steps", "1")
    assert done.status == 2
    assert "2 steps or more" in done.err
