"""Dropout, locked and not."""

from itertools import pairwise

import pytest
import torch

from lm.dropout import Dropout, LockedDropout, dropout_mask

BATCH, STEPS, FEATURES = 8, 5, 500

KINDS = pytest.mark.parametrize("kind", [Dropout, LockedDropout])

pytestmark = pytest.mark.usefixtures("seed")


def test_the_mask_stays_over_time_and_differs_between_sequences() -> None:
    dropped = LockedDropout(0.4)(torch.ones(BATCH, STEPS, FEATURES))
    assert torch.equal(dropped, dropped[:, :1].expand(-1, STEPS, -1))
    assert len(dropped[:, 0].unique(dim=0)) == BATCH


def test_without_a_lock_every_element_is_decided_on_its_own() -> None:
    dropped = Dropout(0.5)(torch.ones(BATCH, STEPS, FEATURES)).view(BATCH * STEPS, FEATURES) > 0
    agreement = torch.corrcoef(dropped.float()) - torch.eye(BATCH * STEPS)
    assert agreement.abs().max().item() < 5 * FEATURES**-0.5
    neighbours = (dropped[:, 1:] == dropped[:, :-1]).float()
    assert abs(neighbours.mean().item() - 0.5) < 4 * 0.5 * neighbours.numel() ** -0.5


@KINDS
@pytest.mark.parametrize("rate", [0.01, 0.4, 0.9])
def test_what_stays_is_scaled_so_that_the_mean_stays(kind: type[Dropout], rate: float) -> None:
    dropped = kind(rate)(torch.ones(BATCH, 1, FEATURES))
    torch.testing.assert_close(dropped.unique(), torch.tensor([0, 1 / (1 - rate)]))
    deviation = (rate * (1 - rate) / (BATCH * FEATURES)) ** 0.5
    assert abs((dropped == 0).float().mean().item() - rate) < 4 * deviation


@pytest.mark.parametrize(("rate", "expected"), [(2.0**-32, {1.0}), (1 - 2.0**-32, {0.0}), (1 - 2.0**-53, {0.0})])
def test_the_extreme_rates_overflow_nowhere(rate: float, expected: set[float]) -> None:
    assert set(dropout_mask(torch.ones(999), rate).tolist()) == expected


@pytest.mark.parametrize("rate", [0.3 / 2**16, 2.5 / 2**16])
def test_a_rate_between_two_thresholds_is_exact_in_the_mean(rate: float) -> None:
    """16 bits decide an element: a threshold that was rounded once and for all would drop none, or too many."""
    masks, size = 2000, 2**12
    dropped = sum(size - int(dropout_mask(torch.ones(size), rate).count_nonzero()) for _ in range(masks))
    assert dropped == pytest.approx(rate * masks * size, abs=5 * (rate * masks * size) ** 0.5)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (2, 0, 4)])
def test_a_mask_has_any_shape(shape: tuple[int, ...]) -> None:
    assert dropout_mask(torch.ones(shape), 0.5).shape == shape


@KINDS
def test_a_seed_gives_one_mask_and_every_call_draws_another(kind: type[Dropout]) -> None:
    dropout, x = kind(0.5), torch.ones(1, 1, FEATURES)
    first = dropout(x)
    assert not torch.equal(dropout(x), first)
    torch.manual_seed(torch.initial_seed())
    assert torch.equal(dropout(x), first)


@KINDS
@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.9, False)])
def test_nothing_is_dropped_in_evaluation_or_at_rate_0(kind: type[Dropout], rate: float, training: bool) -> None:
    x = torch.randn(BATCH, STEPS, FEATURES)
    dropout = kind(rate).train(training)
    assert torch.equal(dropout(x), x)
    assert torch.equal(dropout.held(x)(x), x)


@KINDS
def test_masks_drawn_ahead_are_those_of_single_steps(kind: type[Dropout]) -> None:
    x = torch.ones(BATCH, FEATURES)
    drop = kind(0.5).ahead(STEPS)
    steps = torch.stack([drop(x) for _ in range(2 * STEPS)])  # twice as many as were asked for
    assert set(steps.flatten().tolist()) == {0.0, 2.0}
    different = [int((after != before).sum()) for before, after in pairwise(steps[:STEPS])]
    expected = 0 if kind is LockedDropout else BATCH * FEATURES / 2
    assert different == pytest.approx([expected] * (STEPS - 1), rel=0.25)
    assert not torch.equal(steps[0], steps[STEPS])
    assert torch.equal(kind(0.5).eval().ahead(STEPS)(x), x)


@KINDS
def test_the_gradient_sees_the_same_mask(kind: type[Dropout]) -> None:
    x = torch.randn(2, STEPS, FEATURES, requires_grad=True)
    dropped = kind(0.5)(x)
    dropped.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x, dropped)


@KINDS
def test_half_precision_stays_half(kind: type[Dropout]) -> None:
    assert kind(0.5)(torch.ones(2, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


@KINDS
@pytest.mark.parametrize("rate", [-0.1, 1.0, 2.0])
def test_the_rate_is_a_probability_below_1(kind: type[Dropout], rate: float) -> None:
    with pytest.raises(ValueError, match=f"{kind.__name__}: the rate is a probability below 1, got {rate}"):
        kind(rate)
