"""The adaptive softmax against torch's own, and where that one fails: unused clusters, tied weights, little memory."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lm.adaptive_softmax import AdaptiveSoftmaxHead
from lm.heads import HeadLoss

LANES, STEPS, HIDDEN_SIZE, VOCAB_SIZE, CUTOFFS = 3, 7, 32, 60, [10, 25]
ONE_CHUNK, FEW_ROWS = 64.0, 3 * 12 * 4 / 2**20  # MiB: three rows of the first softmax, one of the last

pytestmark = pytest.mark.usefixtures("seed")


def make_inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    hidden = torch.randn(LANES, STEPS, HIDDEN_SIZE, dtype=dtype, requires_grad=True)
    return hidden, torch.randint(VOCAB_SIZE, (LANES, STEPS)), torch.rand(LANES, STEPS, dtype=dtype)


def make_head(budget: float = ONE_CHUNK, projection_size: int | None = None) -> AdaptiveSoftmaxHead:
    head = AdaptiveSoftmaxHead(HIDDEN_SIZE, VOCAB_SIZE, CUTOFFS, 2.0, projection_size, budget)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.5)  # so that words of every cluster are sometimes the most probable
    return head


def torchs(head: AdaptiveSoftmaxHead) -> nn.AdaptiveLogSoftmaxWithLoss:
    """torch's module with the weights of a head."""
    theirs = nn.AdaptiveLogSoftmaxWithLoss(HIDDEN_SIZE, VOCAB_SIZE, CUTOFFS, div_value=2.0).to(head.gate.weight.dtype)
    weights = {"head.weight": head.first_weight()}
    for i in range(len(CUTOFFS)):
        weights[f"tail.{i}.0.weight"] = head.get_parameter(f"projections.{i + 1}.weight").T
        weights[f"tail.{i}.1.weight"] = head.cluster_weight(i + 1)
    theirs.load_state_dict(weights)
    return theirs


@pytest.mark.parametrize("budget", [ONE_CHUNK, FEW_ROWS])
def test_loss_and_log_probabilities_equal_torchs(budget: float) -> None:
    head = make_head(budget)
    hidden, targets, weights = make_inputs()
    theirs = torchs(head)
    rows = hidden.flatten(0, 1)
    log_prob, nll = theirs.log_prob(rows).view(LANES, STEPS, -1), -theirs(rows, targets.flatten()).output.view(LANES, STEPS)
    torch.testing.assert_close(head.log_prob(hidden), log_prob, rtol=1e-6, atol=1e-5)
    for loss in (head.loss(hidden, targets, weights), head.loss(hidden.detach(), targets, weights)):
        torch.testing.assert_close(loss.nll, nll.detach(), rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(loss.total, (nll * weights).sum(), rtol=1e-6, atol=1e-5)
        assert not loss.nll.requires_grad
    torch.testing.assert_close(head.loss(hidden, targets).total, nll.sum(), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("budget", [ONE_CHUNK, 2 * FEW_ROWS])
@pytest.mark.parametrize("projection_size", [None, 16])
def test_gradients_are_those_of_the_log_probabilities_in_double_precision(budget: float, projection_size: int | None) -> None:
    head = make_head(budget, projection_size).double()
    hidden, targets, weights = make_inputs(torch.float64)
    expected = -(head.log_prob(hidden).gather(-1, targets[..., None])[..., 0] * weights).sum()
    total = head.loss(hidden, targets, weights).total
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)
    parameters = [hidden, *head.parameters()]
    for ours, plain in zip(torch.autograd.grad(total, parameters), torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)


def test_gradients_of_parameters_equal_torchs() -> None:
    head = make_head()
    hidden, targets, _ = make_inputs()
    theirs = torchs(head)
    torch.autograd.backward(head.loss(hidden, targets).total)
    torch.autograd.backward(-theirs(hidden.detach().flatten(0, 1), targets.flatten()).output.sum())
    gradient = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    first = gradient["head.weight"]
    assert first is not None
    torch.testing.assert_close(head.get_parameter("words.0.weight").grad, first[:10], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(head.gate.weight.grad, first[10:], rtol=1e-5, atol=1e-5)
    for i in (1, 2):
        ours = head.get_parameter(f"projections.{i}.weight").grad
        assert ours is not None
        torch.testing.assert_close(ours.T, gradient[f"tail.{i - 1}.0.weight"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(head.cluster_weight(i).grad, gradient[f"tail.{i - 1}.1.weight"], rtol=1e-5, atol=1e-5)


def test_a_cluster_without_a_target_gets_a_gradient_of_zero() -> None:
    head = make_head()
    hidden, targets, _ = make_inputs()
    torch.autograd.backward(head.loss(hidden, targets % 25).total)
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any().item() is (".2." not in name), name
    theirs = torchs(head)
    torch.autograd.backward(theirs(hidden.detach().flatten(0, 1), (targets % 25).flatten()).loss)
    assert theirs.get_parameter("tail.1.0.weight").grad is None  # what is to be avoided


def test_probabilities_sum_to_one() -> None:
    log_prob = make_head(projection_size=8).log_prob(torch.randn(LANES, STEPS, HIDDEN_SIZE))
    assert log_prob.shape == (LANES, STEPS, VOCAB_SIZE)
    torch.testing.assert_close(log_prob.exp().sum(-1), torch.ones(LANES, STEPS))


@pytest.mark.parametrize("budget", [ONE_CHUNK, FEW_ROWS])
def test_evaluation_says_which_targets_are_the_most_probable(budget: float) -> None:
    head = make_head(budget)
    hidden, targets = torch.randn(300, HIDDEN_SIZE), torch.randint(VOCAB_SIZE, (300,))
    best = head.log_prob(hidden).argmax(-1)
    assert ((best >= 10) & (best < 25)).any()
    assert (best >= 25).any()
    targets[:200] = best[:200]
    with torch.no_grad():
        loss = head.loss(hidden, targets)
    assert loss.correct is not None
    assert torch.equal(loss.correct, best == targets)
    training = head.loss(hidden, targets)
    assert training.correct is None
    torch.testing.assert_close(loss.nll, training.nll)


@pytest.mark.parametrize("budget", [ONE_CHUNK, FEW_ROWS])
def test_under_autocast_sums_stay_in_fp32(budget: float) -> None:
    head = make_head(budget)
    hidden, targets, weights = make_inputs()
    exact = head.loss(hidden, targets, weights)
    with torch.autocast("cpu", torch.bfloat16):
        loss, log_prob = head.loss(hidden, targets, weights), head.log_prob(hidden)
        with torch.no_grad():
            evaluated = head.loss(hidden, targets, weights)
    assert {tensor.dtype for tensor in (loss.total, loss.nll, log_prob, evaluated.nll)} == {torch.float32}
    torch.testing.assert_close(log_prob.exp().sum(-1), torch.ones(LANES, STEPS))
    torch.testing.assert_close(loss.nll, exact.nll, rtol=2**-5, atol=2**-4)
    torch.testing.assert_close(evaluated.nll, loss.nll)
    parameters = [hidden, *head.parameters()]
    halves, wholes = (torch.autograd.grad(total, parameters) for total in (loss.total, exact.total))
    for half, whole in zip(halves, wholes, strict=True):
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, whole, rtol=2**-4, atol=2**-4 * float(whole.abs().max()))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda head: head.loss(torch.zeros(1, 32), torch.tensor([60])), IndexError, "AdaptiveSoftmaxHead: the target 60 .* 60"),
        (lambda head: head.loss(torch.zeros(1, 31), torch.tensor([0])), ValueError, r"AdaptiveSoftmaxHead: hidden \(1, 31\)"),
        (lambda _: AdaptiveSoftmaxHead(32, 60, []), ValueError, r"cutoffs: \[\] do not divide 60 ids .* such as \[6\]"),
        (lambda _: AdaptiveSoftmaxHead(32, 60, [25, 10]), ValueError, r"cutoffs: \[25, 10\] do not divide 60 ids"),
        (lambda _: AdaptiveSoftmaxHead(32, 60, [0, 10]), ValueError, r"cutoffs: \[0, 10\] do not divide"),
        (lambda _: AdaptiveSoftmaxHead(32, 60, [10, 60]), ValueError, "from 1 to 59"),
        (lambda _: AdaptiveSoftmaxHead(8, 60, [10, 25], 4.0), ValueError, "8 features divided by 4.0 2 times leave the rarest"),
        (lambda _: AdaptiveSoftmaxHead(8, 60, [10], 0.5), ValueError, "div_value: 0.5 would give rare words more features"),
        (lambda _: AdaptiveSoftmaxHead(8, 60, [10], memory_budget_mib=0), ValueError, "SoftmaxHead: memory_budget_mib=0"),
    ],
)
def test_errors(call: Callable[[AdaptiveSoftmaxHead], HeadLoss], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(make_head())
