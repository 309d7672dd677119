"""Callbacks that change what training does: clipping, regularization, tying, resets, resumed settings."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from tiny_runs import LINES, Run, TinyRun, same

from callbacks import GradientClipping, HiddenStateReset, RNNRegularization, WeightTying
from callbacks.regularization import activation, slowness
from callbacks.resumption import ResumedOptimizer
from datamodules.language import LanguageData
from lm import LanguageModel, RNNOutput
from lm.heads import LinearHead

CLIPPED_NORM, CLIPPED_VALUE = 0.3, 0.02


def outputs(raw: list[float], hidden: list[float] | None = None) -> RNNOutput:
    """One sequence of one feature."""
    raw_states = torch.tensor(raw)[None, :, None]
    return RNNOutput(raw_states if hidden is None else torch.tensor(hidden)[None, :, None], raw_states, None, None)


# Clipping


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"norm": CLIPPED_NORM}, {"gradient_clip_val": CLIPPED_NORM}),
        ({"value": CLIPPED_VALUE}, {"gradient_clip_val": CLIPPED_VALUE, "gradient_clip_algorithm": "value"}),
    ],
)
def test_clipping_equals_that_of_the_trainer_bit_for_bit(
    tiny_run: TinyRun, ours: dict[str, float], theirs: dict[str, Any]
) -> None:
    clipped = tiny_run([GradientClipping(**ours)])
    assert same(clipped, tiny_run(trainer=theirs))
    assert not same(clipped, tiny_run())


def test_clipping_logs_the_norm_before_and_how_often_it_cut(tiny_run: TinyRun) -> None:
    values = tiny_run([GradientClipping(norm=CLIPPED_NORM)]).values
    assert max(values["train/gradient_norm"]) > CLIPPED_NORM
    steps = [float(norm > CLIPPED_NORM) for norm in values["train/gradient_norm"]]
    assert values["train/clipped_step"] == steps
    values = tiny_run([GradientClipping(norm=1e6)]).values
    assert set(values["train/clipped_step"]) == {0.0}


def test_clip_cuts_by_hand_worked_numbers() -> None:
    def parameter(*gradient: float) -> torch.nn.Parameter:
        found = torch.nn.Parameter(torch.zeros(len(gradient)))
        found.grad = torch.tensor(gradient)
        return found

    unused = torch.nn.Parameter(torch.zeros(1))
    parts = [parameter(3.0), parameter(0.0, 4.0), unused]
    norm, cut = GradientClipping(norm=1.0).clip(parts)
    assert (float(norm), bool(cut)) == (5.0, True)
    assert torch.cat([part.grad for part in parts if part.grad is not None]).tolist() == pytest.approx([0.6, 0.0, 0.8])
    parts = [parameter(3.0), parameter(0.0, -4.0), unused]
    norm, cut = GradientClipping(value=3.5).clip(parts)
    assert (float(norm), bool(cut)) == (5.0, True)
    assert torch.cat([part.grad for part in parts if part.grad is not None]).tolist() == [3.0, 0.0, -3.5]
    assert not GradientClipping(value=4.0).clip([parameter(3.0)])[1]


@pytest.mark.parametrize("limits", [{}, {"norm": 1.0, "value": 1.0}, {"norm": 0.0}, {"value": -1.0}])
def test_clipping_takes_exactly_one_positive_limit(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"GradientClipping: .*got norm="):
        GradientClipping(**limits)


def test_clipping_twice_is_refused(tiny_run: TinyRun) -> None:
    with pytest.raises(ValueError, match=r"trainer\.gradient_clip_val=1\.0 clips as well"):
        tiny_run([GradientClipping(norm=1.0)], trainer={"gradient_clip_val": 1.0})


# Regularization


def test_activation_is_the_mean_square_after_dropout() -> None:
    assert activation(outputs(raw=[9.0, 9.0], hidden=[1.0, 3.0])) == (1 + 9) / 2


def test_slowness_is_the_mean_squared_step_before_dropout() -> None:
    assert slowness(outputs(raw=[0.0, 1.0, 3.0], hidden=[7.0, 0.0, 7.0])) == (1 + 4) / 2
    assert slowness(outputs(raw=[5.0])) == 0


def test_regularization_leaves_padding_out() -> None:
    padded = torch.tensor([[[0.0], [1.0], [3.0]], [[2.0], [9.0], [9.0]]])
    output = RNNOutput(hidden=padded, raw=padded, state=None, lengths=torch.tensor([3, 1]))
    assert activation(output) == (0 + 1 + 9 + 4) / 4
    assert slowness(output) == (1 + 4) / 2


def test_regularization_is_computed_in_fp32() -> None:
    half = outputs([300.0, 0.0])._replace(hidden=torch.full((1, 2, 1), 300.0, dtype=torch.float16))  # 300² is over 65,504
    assert activation(half) == 90_000


def test_regularization_raises_the_loss_but_not_the_perplexity(tiny_run: TinyRun) -> None:
    once = {"max_steps": 1}
    plain = tiny_run(trainer=once).values
    regularized = tiny_run([RNNRegularization(alpha=2.0, beta=1.0)], trainer=once).values
    added = regularized["train/ar"][0] + regularized["train/tar"][0]
    assert added > 0
    assert regularized["train/loss"][0] == pytest.approx(plain["train/loss"][0] + added, rel=1e-6)
    assert regularized["train/ppl"] == plain["train/ppl"]


def test_regularization_trains_other_weights_and_leaves_no_term_behind(tiny_run: TinyRun) -> None:
    regularized = tiny_run([RNNRegularization(alpha=2.0, beta=1.0)])
    assert not same(regularized, tiny_run())
    assert regularized.model.loss_terms == {}


def test_a_weight_of_zero_turns_a_term_off(tiny_run: TinyRun) -> None:
    values = tiny_run([RNNRegularization(alpha=0.0, beta=1.0)], trainer={"max_steps": 1}).values
    assert "train/tar" in values
    assert "train/ar" not in values


def test_regularization_refuses_negative_weights_a_second_one_and_other_modules(tiny_run: TinyRun) -> None:
    with pytest.raises(ValueError, match=r"cannot be negative, got alpha=-1\.0, beta=1\.0"):
        RNNRegularization(alpha=-1.0)
    with pytest.raises(ValueError, match="ar, tar is there already"):
        tiny_run([RNNRegularization(), RNNRegularization()])
    with pytest.raises(TypeError, match="LightningModule is none"):
        RNNRegularization().setup(Trainer(logger=False, accelerator="cpu"), LightningModule(), "fit")


# Tying


def tied(model: LanguageModel) -> bool:
    return model.network.embedding.weight is model.head.weight


class CountParameters(Callback):
    """Sees how many parameters the optimizer got."""

    count = 0

    def on_train_start(self, trainer: Trainer, _: LightningModule) -> None:
        self.count = sum(len(group["params"]) for group in trainer.optimizers[0].param_groups)


def test_tying_leaves_one_parameter_for_the_optimizer_and_trains_it(tiny_run: TinyRun) -> None:
    counts = [CountParameters(), CountParameters()]
    plain, shared = tiny_run([counts[0]]), tiny_run([WeightTying(), counts[1]])
    assert not tied(plain.model)
    assert tied(shared.model)
    assert counts[1].count == counts[0].count - 1
    assert not same(shared, tiny_run([WeightTying()], trainer={"max_epochs": 1}))


def test_tied_weights_are_equal_after_a_checkpoint_and_stay_tied_when_resumed(tiny_run: TinyRun, tmp_path: Path) -> None:
    parts = [WeightTying(), HiddenStateReset()]
    whole, first = tiny_run(parts), tiny_run(parts, trainer={"max_epochs": 1})
    first.trainer.save_checkpoint(tmp_path / "tied.ckpt")
    loaded = LanguageModel.load_from_checkpoint(tmp_path / "tied.ckpt")
    saved = dict(loaded.named_parameters())
    assert torch.equal(saved["head.weight"], saved["network.embedding.weight"])
    resumed = tiny_run(parts, checkpoint=str(tmp_path / "tied.ckpt"))
    assert tied(resumed.model)
    assert same(resumed, whole)


@pytest.mark.parametrize("order", list(permutations([("0", "1"), ("1", "2"), ("3", "1")])))
def test_ties_add_up_in_any_order(order: Sequence[tuple[str, str]]) -> None:
    module = LightningModule()
    for name in "01234":
        module.add_module(name, torch.nn.Linear(2, 2))
    alone = module.get_parameter("4.weight")
    for source, target in order:
        for _ in range(2):  # fit, and then test
            WeightTying(source, target).setup(Trainer(logger=False, accelerator="cpu"), module, "fit")
    assert len({id(module.get_submodule(name).weight) for name in "0123"}) == 1
    assert module.get_parameter("4.weight") is alone
    assert len(list(module.parameters())) == 5 + 2  # biases, and weights


def test_tying_of_other_sizes_is_refused_and_a_projection_is_the_remedy(tiny_run: TinyRun) -> None:
    wide = {"layer_sizes": [10]}
    with pytest.raises(
        ValueError, match=r"network\.embedding is \(\d+, 6\) and head \(\d+, 10\); set projection_size of the head to 6"
    ):
        tiny_run([WeightTying()], model=wide)
    assert tied(tiny_run([WeightTying()], model=wide | {"head": partial(LinearHead, projection_size=6)}).model)


def test_tying_refuses_one_hot_input_and_unknown_modules(tiny_run: TinyRun) -> None:
    with pytest.raises(ValueError, match=r"network\.embedding has no weight to share; one-hot input has none"):
        tiny_run([WeightTying()], model={"embedding_size": None})
    with pytest.raises(ValueError, match="LanguageModel has no encoder; it has network, head"):
        tiny_run([WeightTying(source="encoder")])


# State


class SeeState(Callback):
    """Notes whether a state is carried into the first window of each epoch."""

    def __init__(self) -> None:
        self.carried: list[bool] = []

    def on_train_batch_start(self, _: Trainer, pl_module: LightningModule, __: Any, batch_idx: int) -> None:
        if batch_idx == 0 and isinstance(pl_module, LanguageModel):
            self.carried.append(pl_module.carried_state("train") is not None)


@pytest.mark.parametrize(("reset", "carried"), [([HiddenStateReset()], [False, False]), ([], [False, True])])
def test_an_epoch_starts_from_zeros_where_states_are_reset(tiny_run: TinyRun, reset: list[Callback], carried: list[bool]) -> None:
    seen = SeeState()
    tiny_run([*reset, seen])
    assert seen.carried == carried


# Resumption


@pytest.fixture
def halfway(tiny_run: TinyRun, tmp_path: Path) -> str:
    tiny_run([HiddenStateReset()], trainer={"max_epochs": 1}).trainer.save_checkpoint(tmp_path / "half.ckpt")
    return str(tmp_path / "half.ckpt")


def rate_after(run: Run) -> float:
    return float(run.trainer.optimizers[0].param_groups[0]["lr"])


def test_a_resumed_optimizer_keeps_its_settings_unless_it_is_given_others(tiny_run: TinyRun, halfway: str) -> None:
    assert same(tiny_run([ResumedOptimizer(), HiddenStateReset()], checkpoint=halfway), tiny_run([HiddenStateReset()]))
    slower = {"optimizer": partial(torch.optim.SGD, lr=0.5)}
    assert rate_after(tiny_run([ResumedOptimizer()], model=slower, checkpoint=halfway)) == 0.5
    assert rate_after(tiny_run(model=slower, checkpoint=halfway)) == 2.0  # what Lightning does by itself


def test_a_resumed_optimizer_of_another_class_is_refused(tiny_run: TinyRun, halfway: str) -> None:
    with pytest.raises(
        ValueError, match=r"holds the state of torch\.optim\.sgd\.SGD, which does not fit torch\.optim\.adam\.Adam"
    ):
        tiny_run([ResumedOptimizer()], model={"optimizer": torch.optim.Adam}, checkpoint=halfway)


def test_all_of_it_works_together(make_data: Callable[..., LanguageData], make_trainer: Callable[..., Trainer]) -> None:
    data = make_data(LINES, validation=LINES[:6], lanes=4, steps=6)
    model = LanguageModel(data.vocab_size, 6, [6], output_dropout=0.2)
    parts = [WeightTying(), RNNRegularization(), GradientClipping(norm=1.0), HiddenStateReset()]
    trainer = make_trainer(callbacks=parts, max_epochs=2)
    trainer.fit(model, data)
    assert {"train/ar", "train/tar", "train/gradient_norm", "val/ppl"} <= trainer.callback_metrics.keys()
