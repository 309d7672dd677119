"""The QRNN is its equations; what it keeps of the input is carried, saved and generated with."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn.functional import linear

from datamodules.language import LanguageData
from datamodules.recipes import Words
from lm.continuation import all_lanes, own_lanes
from lm.module import LanguageModel
from lm.qrnn import QRNN
from lm.sampling import Sampling

BATCH, STEPS, INPUT, HIDDEN = 3, 20, 5, 4

pytestmark = pytest.mark.usefixtures("seed")

Pooling = Literal["f", "fo", "ifo"]


def equations(cell: QRNN, x: Tensor, previous: Tensor, memory: Tensor, pooling: Pooling) -> Tensor:
    """Bradbury et al. (2017), eq. 1 to 5, written with a matrix for each input and gate."""
    size = HIDDEN
    w_2, b = cell.from_input.weight, cell.from_input.bias
    w_1 = torch.zeros_like(w_2) if cell.from_previous is None else cell.from_previous.weight
    said = []
    for before, now in pairwise([previous, *x.unbind(1)]):
        z, f, *gates = (
            linear(before, w_1[i : i + size]) + linear(now, w_2[i : i + size], b[i : i + size]) for i in range(0, len(w_2), size)
        )
        z, f = z.tanh(), f.sigmoid()
        i = gates[1].sigmoid() if pooling == "ifo" else 1 - f
        memory = f * memory + i * z
        said.append(memory if pooling == "f" else gates[0].sigmoid() * memory)
    return torch.stack(said, dim=1)


@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
def test_it_is_its_equations(window: Literal[1, 2], pooling: Pooling) -> None:
    cell = QRNN(INPUT, HIDDEN, window, pooling)
    x, previous, memory = torch.randn(BATCH, STEPS, INPUT), torch.randn(BATCH, INPUT), torch.randn(BATCH, HIDDEN)
    parts = [memory] if pooling == "f" else [torch.randn(BATCH, HIDDEN), memory]
    state = tuple(part[None] for part in [*parts, *([previous] if window == 2 else [])])
    out, end = cell(x, state)
    torch.testing.assert_close(out, equations(cell, x, previous, memory, pooling), rtol=1e-5, atol=1e-5)
    assert [part.shape for part in end] == [part.shape for part in state]
    if window == 2:
        assert torch.equal(end[-1][0], x[:, -1])


def test_the_first_state_has_an_input_of_its_own_width() -> None:
    x = torch.empty(BATCH, INPUT)
    assert [part.shape[1] for part in QRNN(INPUT, HIDDEN, window=2).first_state(x)] == [HIDDEN, HIDDEN, INPUT]
    assert [part.shape[1] for part in QRNN(INPUT, HIDDEN, window=1, pooling="f").first_state(x)] == [HIDDEN]


def test_in_training_units_are_kept_as_often_as_the_rate_says() -> None:
    cell = QRNN(1, 4000, zoneout=0.3)
    plain = QRNN(1, 4000)
    plain.load_state_dict(cell.state_dict())
    x, state = torch.randn(2, 1, 1), (torch.zeros(1, 2, 4000), torch.randn(1, 2, 4000))
    (_, memory), (_, moved) = cell(x, state)[1], plain(x, state)[1]
    kept = memory == state[1]
    torch.testing.assert_close(memory[~kept], moved[~kept])
    deviation = (0.3 * 0.7 / kept.numel()) ** 0.5
    assert abs(kept.float().mean().item() - 0.3) < 4 * deviation
    assert not torch.equal(kept[:, 0], kept[:, 1])


def test_in_evaluation_a_memory_moves_by_the_mean() -> None:
    cell, plain = QRNN(INPUT, HIDDEN, zoneout=0.3).eval(), QRNN(INPUT, HIDDEN)
    plain.load_state_dict(cell.state_dict())
    x, state = torch.randn(BATCH, 1, INPUT), (torch.zeros(1, BATCH, HIDDEN), torch.randn(1, BATCH, HIDDEN))
    torch.testing.assert_close(cell(x, state)[1][1], 0.3 * state[1] + 0.7 * plain(x, state)[1][1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 3}, "QRNN: a window is of 1 or 2 inputs, got 3"),
        ({"pooling": "of"}, "QRNN: pooling is f, fo or ifo, got 'of'"),
        ({"zoneout": 1.0}, r"QRNN: zoneout is a probability below 1, got 1\.0"),
    ],
)
def test_what_there_is_not_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QRNN(INPUT, HIDDEN, **settings)


# A state whose parts differ in width


def test_lanes_are_gathered_and_divided_part_by_part() -> None:
    state = (tuple(torch.randn(1, 4, size) for size in (HIDDEN, HIDDEN, INPUT)),)
    halves = [own_lanes(all_lanes(state), rank, 2) for rank in range(2)]
    for part, (first, second) in zip(state[0], zip(halves[0][0], halves[1][0], strict=True), strict=True):
        assert torch.equal(torch.cat([first, second], dim=1), part)


LINES = ["a b c d", "b c d a", "c a", "d d b a", "a c", "b a d"] * 4


def test_a_resumed_run_carries_it_on_and_writes_the_same_text(
    make_data: Callable[..., LanguageData], make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    def run(checkpoint: Path | None = None) -> LanguageModel:
        torch.manual_seed(1)
        data = make_data(LINES, lanes=2, steps=4, tokenizer=Words())
        cell = partial(QRNN, window=2, zoneout=0.2)
        model = LanguageModel(data.vocab_size, 6, [8, 5], cell, optimizer=partial(torch.optim.Adam, lr=0.1))
        saving = [] if checkpoint else [ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1)]
        trainer = make_trainer(max_steps=6, callbacks=saving, enable_checkpointing=bool(saving))
        trainer.fit(model, data, ckpt_path=checkpoint)
        return model

    whole, resumed = run(), run(tmp_path / "step=3.ckpt")
    carried, again = whole.carried_state("train"), resumed.carried_state("train")
    assert carried is not None
    assert [[part.shape[2] for part in layer] for layer in carried] == [[8, 8, 6], [5, 5, 8]]
    torch.testing.assert_close(carried, again)
    torch.testing.assert_close(whole.state_dict(), resumed.state_dict())

    loaded = LanguageModel.load_from_checkpoint(tmp_path / "step=6.ckpt")
    texts = loaded.generate(["a b", "c"], 9, Sampling(seed=3))
    assert texts == whole.generate(["a b", "c"], 9, Sampling(seed=3))
    assert [loaded.generate(prompt, 9, Sampling(temperature=0)) for prompt in ("a b", "c")] == [
        [text] for text in loaded.generate(["a b", "c"], 9, Sampling(temperature=0))
    ]
