"""Token-weighted metrics: exact whatever the windows, masks and ranks."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from lm.metrics import TokenMetrics

pytestmark = pytest.mark.usefixtures("seed")


def computed(metrics: TokenMetrics) -> dict[str, float]:
    return {name: value.item() for name, value in metrics.compute().items()}


def test_two_tokens_by_hand() -> None:
    metrics = TokenMetrics()
    metrics.update(torch.tensor([math.log(2), math.log(8)]), torch.tensor([True, False]), units=torch.tensor([1, 3]))
    assert computed(metrics) == pytest.approx({"loss": math.log(4), "ppl": 4, "accuracy": 0.5, "bits": (1 + 3) / (1 + 3)})


def test_uneven_windows_weigh_by_their_tokens() -> None:
    nll, correct = torch.rand(700) * 9, torch.rand(700) < 0.3
    metrics = TokenMetrics()
    for start, end in pairwise([0, 1, 350, 400, 700]):
        metrics.update(nll[start:end], correct[start:end])
    mean = nll.double().sum().item() / 700
    expected = {"loss": mean, "ppl": math.exp(mean), "accuracy": correct.sum().item() / 700}
    assert {name: value for name, value in computed(metrics).items() if name in expected} == pytest.approx(expected, rel=1e-6)


def test_masked_tokens_do_not_count() -> None:
    nll, correct, units = torch.rand(4, 5), torch.rand(4, 5) < 0.5, torch.randint(1, 9, (4, 5)).float()
    mask = (torch.rand(4, 5) < 0.6).float()
    masked, plain = TokenMetrics(), TokenMetrics()
    masked.update(nll, correct, mask, units)
    real = mask.bool()
    plain.update(nll[real], correct[real], None, units[real])
    assert computed(masked) == pytest.approx(computed(plain))
    assert masked.tokens == mask.sum()


def test_bits_are_nats_over_ln_2_a_unit() -> None:
    metrics = TokenMetrics()
    nll, units = torch.tensor([3.0, 4.0]), torch.tensor([2.0, 5.0])
    metrics.update(nll, units=units)
    assert computed(metrics)["bits"] == pytest.approx(7 / 7 / math.log(2))


def test_bits_without_units_are_not_a_number() -> None:
    metrics = TokenMetrics()
    metrics.update(torch.ones(3))
    assert not math.isfinite(computed(metrics)["bits"])


def test_a_loss_of_200_has_a_perplexity() -> None:
    """torchmetrics' own Perplexity is infinite there: the mean of the exponents is not the exponent of the mean."""
    metrics = TokenMetrics()
    metrics.update(torch.tensor([200.0, 0.0, 0.0, 0.0]))
    assert computed(metrics)["ppl"] == pytest.approx(math.exp(50), rel=1e-6)


def test_ten_million_tokens_lose_no_digit() -> None:
    """A sum in fp32 stops growing by 1.1 at some ten millions."""
    metrics = TokenMetrics()
    for _ in range(20):
        metrics.update(torch.full((1,), 1.1).expand(500_000))
    assert computed(metrics)["loss"] == pytest.approx(1.1, rel=1e-7)


def test_the_sums_of_two_ranks_make_the_metrics_of_all_tokens() -> None:
    def window(size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return torch.rand(size), torch.rand(size) < 0.5, (torch.rand(size) < 0.9).float(), torch.ones(size) * 4

    windows = [window(size) for size in (3, 100, 17)]
    one, first, second, merged = (TokenMetrics() for _ in range(4))
    for parts in windows:
        one.update(*parts)
    first.update(*windows[0])
    second.update(*windows[1])
    second.update(*windows[2])
    for name, reduction in merged._reductions.items():  # what torchmetrics does with the states it has gathered
        assert callable(reduction)
        setattr(merged, name, reduction(torch.stack([getattr(first, name), getattr(second, name)])))
    merged.update(torch.zeros(0))  # compute warns where nothing was seen
    assert computed(merged) == pytest.approx(computed(one))
    assert merged.tokens == one.tokens


def test_reset_forgets() -> None:
    metrics = TokenMetrics()
    metrics.update(torch.full((5,), 9.0))
    metrics.reset()
    metrics.update(torch.tensor([1.0]))
    assert computed(metrics)["loss"] == 1


def test_sums_move_to_a_device_without_float64_in_float32() -> None:
    """No such device is here: a function that moves nothing and says it did stands in for it."""

    class Moved(torch.Tensor):
        device = torch.device("mps")

    def move(tensor: torch.Tensor) -> torch.Tensor:
        assert tensor.dtype != torch.float64
        return tensor.as_subclass(Moved) if tensor.shape == (1,) else tensor

    metrics = TokenMetrics()
    metrics.update(torch.tensor([1.0, 3.0]))
    metrics._apply(move)
    metrics.update(torch.tensor([2.0]))
    assert metrics.nll.dtype == torch.float32
    assert metrics.compute()["loss"] == 2.0
