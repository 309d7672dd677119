"""Gradients through time, measured while a model trains."""

from pathlib import Path

import pytest
from saving import SaveAt
from tiny_runs import TinyRun, same

from callbacks import GradientClipping
from callbacks.gradient_flow import GradientFlow
from lm.cells import LSTMCell


def test_the_picture_has_the_first_and_the_last_measurement_and_every_step(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flow = GradientFlow()
    run = tiny_run([GradientClipping(norm=0.5), flow], {"cell": LSTMCell, "layer_sizes": [5, 6]}, {"max_epochs": 3})
    batches = run.trainer.global_step // 3
    assert list(flow.flows) == ["step 0", f"step {2 * batches}"]
    assert len(flow.steps["gradient_norm"]) == len(flow.steps["loss"]) == run.trainer.global_step
    assert flow.steps["gradient_norm"] == run.values["train/gradient_norm"]
    assert run.values["train/flow"][-1] == pytest.approx(float(flow.flows[f"step {2 * batches}"][-1].of_last[0]))
    assert (tmp_path / "gradient_flow.png").stat().st_size > 10_000
    assert "gradient flow: " in capsys.readouterr().out
    labels = [line.get_label() for line in flow.figure().axes[0].get_lines()]
    assert labels == [f"step {step}, layer {layer}" for step in (0, 2 * batches) for layer in (1, 2)]


def test_training_stays_the_same(tiny_run: TinyRun) -> None:
    settings = {"cell": LSTMCell, "output_dropout": 0.3}
    assert same(tiny_run([], settings), tiny_run([GradientFlow()], settings))


def test_a_resumed_run_draws_what_the_whole_one_would(tiny_run: TinyRun, tmp_path: Path) -> None:
    whole, resumed = GradientFlow(), GradientFlow()
    clipping = GradientClipping(norm=0.5)
    batches = len(tiny_run([clipping], trainer={"max_epochs": 1}).values["train/loss"])
    tiny_run([clipping, whole, SaveAt(batches + 2, tmp_path / "half.ckpt")], trainer={"max_epochs": 3})
    tiny_run([clipping, resumed], trainer={"max_epochs": 3}, checkpoint=str(tmp_path / "half.ckpt"))
    assert resumed.steps["loss"] == pytest.approx(whole.steps["loss"])
    assert list(resumed.flows) == list(whole.flows)


def test_wrong_settings_are_told() -> None:
    with pytest.raises(ValueError, match="every_n_epochs=0"):
        GradientFlow(every_n_epochs=0)
