"""Locked dropout."""

import pytest
import torch

from lm.dropout import LockedDropout

BATCH, STEPS, FEATURES = 8, 5, 500

pytestmark = pytest.mark.usefixtures("seed")


def test_the_mask_stays_over_time_and_differs_between_sequences() -> None:
    dropped = LockedDropout(0.4)(torch.ones(BATCH, STEPS, FEATURES))
    assert torch.equal(dropped, dropped[:, :1].expand(-1, STEPS, -1))
    assert len(dropped[:, 0].unique(dim=0)) == BATCH


def test_what_stays_is_scaled_so_that_the_mean_stays() -> None:
    dropped = LockedDropout(0.4)(torch.ones(BATCH, 1, FEATURES))
    torch.testing.assert_close(dropped.unique(), torch.tensor([0, 1 / 0.6]))
    deviation = (0.4 * 0.6 / (BATCH * FEATURES)) ** 0.5
    assert abs((dropped == 0).float().mean().item() - 0.4) < 4 * deviation


def test_every_call_draws_another_mask() -> None:
    dropout, x = LockedDropout(0.5), torch.ones(1, 1, FEATURES)
    assert not torch.equal(dropout(x), dropout(x))


@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.9, False)])
def test_nothing_is_dropped_in_evaluation_or_at_rate_0(rate: float, training: bool) -> None:
    x = torch.randn(BATCH, STEPS, FEATURES)
    assert torch.equal(LockedDropout(rate).train(training)(x), x)


def test_the_gradient_sees_the_same_mask() -> None:
    x = torch.randn(2, STEPS, FEATURES, requires_grad=True)
    dropped = LockedDropout(0.5)(x)
    dropped.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x, dropped)


def test_half_precision_stays_half() -> None:
    assert LockedDropout(0.5)(torch.ones(2, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2.0])
def test_the_rate_is_a_probability_below_1(rate: float) -> None:
    with pytest.raises(ValueError, match=f"a probability below 1, got {rate}"):
        LockedDropout(rate)
