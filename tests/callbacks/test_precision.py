"""What is computed in which precision while a Trainer trains in another."""

from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from tiny_runs import TinyRun, same
from torch import Tensor
from torch.amp import GradScaler

from callbacks import GradientClipping, RNNRegularization
from lm import LanguageModel

CLIPPED_NORM = 0.2


class Types(Callback):
    """Notes the types of what has to be exact."""

    def __init__(self) -> None:
        self.found: dict[str, set[torch.dtype]] = {"loss": set(), "state": set()}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        assert isinstance(pl_module, LanguageModel)
        for name, term in list(pl_module.loss_terms.items()):
            pl_module.loss_terms[name] = lambda output, name=name, term=term: self.note(name, term(output))  # type: ignore[misc]

    def note(self, name: str, value: Tensor) -> Tensor:
        self.found.setdefault(name, set()).add(value.dtype)
        return value

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:  # noqa: ARG002
        self.note("loss", outputs["loss"])
        assert isinstance(pl_module, LanguageModel)
        for state in pl_module.states.values():
            self.note("state", state[0][0])


def scaled(scale: float) -> Any:
    """fp16 with a gradient scaler, which a Trainer would make for a GPU."""
    return MixedPrecision("16-mixed", "cpu", GradScaler("cpu", init_scale=scale))


@pytest.mark.parametrize(
    ("precision", "exact", "tolerance"),
    [("bf16-mixed", torch.float32, 0.02), ("bf16-true", torch.float32, 0.05), ("64-true", torch.float64, 1e-5)],
)
def test_losses_regularizers_and_carried_states_are_exact(
    tiny_run: TinyRun, precision: str, exact: torch.dtype, tolerance: float
) -> None:
    types = Types()
    run = tiny_run([GradientClipping(CLIPPED_NORM), RNNRegularization(), types], trainer={"precision": precision})
    assert types.found == {name: {exact} for name in ("loss", "state", "ar", "tar")}
    whole = tiny_run([GradientClipping(CLIPPED_NORM), RNNRegularization()])
    assert run.values["val/ppl"][-1] == pytest.approx(whole.values["val/ppl"][-1], rel=tolerance)


def test_gradients_are_clipped_after_they_are_unscaled(tiny_run: TinyRun) -> None:
    types = Types()
    parts = [GradientClipping(CLIPPED_NORM), RNNRegularization(), types]
    half = tiny_run(parts, trainer={"plugins": [scaled(2.0**10)]})
    whole = tiny_run([GradientClipping(CLIPPED_NORM), RNNRegularization()])
    norms, expected = (torch.tensor(run.values["train/gradient_norm"]) for run in (half, whole))
    torch.testing.assert_close(norms, expected, rtol=0.02, atol=0)
    assert expected.max() > CLIPPED_NORM
    assert types.found == {name: {torch.float32} for name in ("loss", "state", "ar", "tar")}
    for mine, theirs in zip(half.weights(), whole.weights(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0.02)


def test_a_step_that_overflows_is_left_out(tiny_run: TinyRun) -> None:
    plugin = scaled(2.0**40)
    run = tiny_run([GradientClipping(CLIPPED_NORM)], trainer={"plugins": [plugin], "max_steps": 2})
    start = tiny_run(trainer={"max_steps": 0})
    assert plugin.scaler.get_scale() == 2.0**38
    assert same(run, start)
