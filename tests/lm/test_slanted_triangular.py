"""The slanted triangle against numbers worked out by hand from the paper's equation."""

import pytest
import torch

from lm.slanted_triangular import SlantedTriangularLR


def rates(steps: int, total_steps: int, cut_fraction: float = 0.1, ratio: float = 32.0, highest: float = 32.0) -> list[float]:
    """The rates of so many steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=highest)
    schedule = SlantedTriangularLR(optimizer, total_steps, cut_fraction, ratio)
    found = []
    for _ in range(steps):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        schedule.step()
    return found


def test_it_rises_to_the_cut_and_falls_to_the_end() -> None:
    found = rates(41, total_steps=40)  # cut 4; p is a quarter more each step, then 1/36 less
    assert found[:5] == pytest.approx([1, 1 + 31 / 4, 1 + 31 / 2, 1 + 31 * 3 / 4, 32])
    assert found[22] == pytest.approx(1 + 31 / 2)  # p = 1 − 18/36
    assert found[40] == pytest.approx(1)
    assert found == pytest.approx([1 + 31 * paper(t, 40) for t in range(41)])


def paper(t: int, total: int, cut_fraction: float = 0.1) -> float:
    """p as eq. 3 prints it."""
    cut = int(total * cut_fraction)
    return t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_fraction - 1))


def test_a_cut_within_a_step_leaves_rates_above_the_lowest() -> None:
    assert 1 + 31 * paper(18, 19) < 0  # why ours differs
    found = rates(25, total_steps=19)
    assert found[1] == 32
    assert found[19:] == pytest.approx([1] * 6)
    assert min(found) == pytest.approx(1)


def test_a_run_too_short_for_a_rise_begins_at_the_top() -> None:
    assert rates(5, total_steps=4, ratio=2.0, highest=8.0) == [8, 7, 6, 5, 4]


@pytest.mark.parametrize("wrong", [{"total_steps": 0}, {"cut_fraction": 1.0}, {"cut_fraction": -0.1}, {"ratio": 0.5}])
def test_what_makes_no_triangle_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"SlantedTriangularLR: total_steps and ratio .*got total_steps="):
        rates(1, **({"total_steps": 10} | wrong))  # type: ignore[arg-type]


def test_without_an_end_it_names_the_remedy() -> None:
    with pytest.raises(ValueError, match="set total_steps_as of the schedule to total_steps"):
        SlantedTriangularLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0))
