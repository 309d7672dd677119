import torch
from tiny_models import p_value
from torch import Tensor

from mt.noise import signed, uniform


def test_numbers_are_those_of_splitmix64() -> None:
    """Worked out with Python's integers, which do not overflow."""

    def mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    key = mix((mix((mix(11) + 5) % 2**64) + 3) % 2**64)
    expected = [((mix((key + i * 0x9E3779B97F4A7C15) % 2**64) >> 12) + 0.5) / 2**52 for i in range(1, 5)]
    assert uniform(11, torch.tensor([5]), 3, 4)[0].tolist() == expected


def test_the_first_number_of_the_published_generator() -> None:
    """SplitMix64 from seed 0 begins with e220a8397b1dcdaf."""
    from mt.noise import GOLDEN_GAMMA, mix

    assert mix(torch.tensor([signed(GOLDEN_GAMMA)])).item() == signed(0xE220A8397B1DCDAF)


def serial_pairs(draws: Tensor) -> Tensor:
    """Counts of neighbouring draws in a grid of 16 by 16."""
    cells = (draws.flatten() * 16).long()
    return torch.bincount(cells[:-1] * 16 + cells[1:], minlength=256).double()


def test_draws_are_uniform_along_every_coordinate() -> None:
    """And neighbours are independent: along places, sentences, positions and seeds."""
    sentences = torch.arange(300)
    along = {
        "places": uniform(0, sentences, 0, 300),
        "sentences": uniform(0, torch.arange(30_000), 1, 1),
        "positions": torch.stack([uniform(0, sentences[:30], position, 1) for position in range(-1, 999)], dim=-1),
        "seeds": torch.stack([uniform(seed, sentences[:30], 0, 1) for seed in range(1000)], dim=-1),
    }
    for draws in along.values():
        assert draws.min() > 0
        assert draws.max() < 1
        count = draws.numel() - 1
        assert p_value(serial_pairs(draws), torch.full((256,), count / 256)) > 1e-4


def test_a_draw_does_not_depend_on_the_others() -> None:
    every = uniform(3, torch.tensor([4, 9, 2]), 7, 10)
    assert torch.equal(uniform(3, torch.tensor([9]), 7, 4)[0], every[1, :4])
