"""The mixture of softmaxes against its equation written with plain torch."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lm.heads import HeadLoss, LinearHead
from lm.mixture_of_softmaxes import MixtureOfSoftmaxesHead

LANES, STEPS, HIDDEN_SIZE, VOCAB_SIZE, EXPERTS = 3, 7, 8, 50, 4
ONE_CHUNK, THREE_POSITIONS = 64.0, 3 * EXPERTS * VOCAB_SIZE * 4 / 2**20  # MiB

pytestmark = pytest.mark.usefixtures("seed")


def make_inputs() -> tuple[Tensor, Tensor, Tensor]:
    hidden = torch.randn(LANES, STEPS, HIDDEN_SIZE, requires_grad=True)
    return hidden, torch.randint(VOCAB_SIZE, (LANES, STEPS)), torch.rand(LANES, STEPS)


def make_head(budget: float = ONE_CHUNK, projection_size: int | None = 5) -> MixtureOfSoftmaxesHead:
    head = MixtureOfSoftmaxesHead(
        HIDDEN_SIZE, VOCAB_SIZE, experts=EXPERTS, projection_size=projection_size, memory_budget_mib=budget
    )
    assert head.bias is not None
    nn.init.normal_(head.bias)
    nn.init.normal_(head.weight)  # so that experts are sure, and disagree
    nn.init.normal_(head.prior.weight)
    return head


def reference(head: MixtureOfSoftmaxesHead, hidden: Tensor) -> Tensor:
    """log Σ_k π_k softmax_k over the vocabulary, as the equation says it."""
    prior = (hidden @ head.prior.weight.T).softmax(-1)
    probability = torch.zeros(*hidden.shape[:-1], VOCAB_SIZE, dtype=hidden.dtype)
    for k in range(EXPERTS):
        rows = slice(k * head.size, (k + 1) * head.size)
        latent = (hidden @ head.latent.weight[rows].T + head.latent.bias[rows]).tanh()
        logits = latent @ head.weight.T + (0 if head.bias is None else head.bias)
        probability = probability + prior[..., k, None] * logits.softmax(-1)
    return probability.log()


def reference_loss(head: MixtureOfSoftmaxesHead, hidden: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    nll = -reference(head, hidden).gather(-1, targets[..., None])[..., 0]
    return (nll * weights).sum(), nll.detach()


def gradients(total: Tensor, head: MixtureOfSoftmaxesHead, hidden: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(total, [hidden, *head.parameters()]))


@pytest.mark.parametrize("budget", [ONE_CHUNK, 2 * THREE_POSITIONS])  # three positions of 8 bytes
@pytest.mark.parametrize("projection_size", [None, 5])
def test_loss_and_gradient_equal_the_equation_in_double_precision(budget: float, projection_size: int | None) -> None:
    head = make_head(budget, projection_size).double()
    hidden, targets, weights = make_inputs()
    hidden, weights = hidden.detach().double().requires_grad_(), weights.double()
    expected, expected_nll = reference_loss(head, hidden, targets, weights)
    loss = head.loss(hidden, targets, weights)
    torch.testing.assert_close(loss.total, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(loss.nll, expected_nll, rtol=1e-12, atol=1e-12)
    assert not loss.nll.requires_grad
    assert loss.correct is None
    for ours, plain in zip(gradients(loss.total, head, hidden), gradients(expected, head, hidden), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)


def test_the_loss_is_that_of_the_log_probabilities_which_sum_to_one() -> None:
    head = make_head(THREE_POSITIONS)
    hidden, targets, weights = make_inputs()
    log_prob = head.log_prob(hidden)
    torch.testing.assert_close(log_prob.exp().sum(-1), torch.ones(LANES, STEPS))
    torch.testing.assert_close(log_prob, reference(head, hidden), rtol=1e-5, atol=1e-5)
    nll = -log_prob.gather(-1, targets[..., None])[..., 0]
    loss = head.loss(hidden, targets, weights)
    torch.testing.assert_close(loss.nll, nll.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(loss.total, (nll * weights).sum(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(head.loss(hidden, targets).total, nll.sum(), rtol=1e-6, atol=1e-6)


def test_one_expert_is_a_linear_head_over_its_latent_state() -> None:
    head = MixtureOfSoftmaxesHead(HIDDEN_SIZE, VOCAB_SIZE, experts=1)
    linear = LinearHead(HIDDEN_SIZE, VOCAB_SIZE)
    linear.load_state_dict({"weight": head.weight, "bias": head.bias})
    hidden, targets, weights = make_inputs()
    latent = head.latent(hidden).tanh()
    torch.testing.assert_close(head.loss(hidden, targets, weights).total, linear.loss(latent, targets, weights).total)


def test_a_mixture_has_a_higher_rank_than_a_softmax() -> None:
    """Yang et al. 2018, §2: one softmax over two features has log-probabilities of rank 3, W h minus a constant."""
    hidden = torch.randn(40, 2, dtype=torch.float64)
    rank = {
        head: int(torch.linalg.matrix_rank(head(2, 30).double().log_prob(hidden), rtol=1e-9))
        for head in (LinearHead, MixtureOfSoftmaxesHead)
    }
    assert rank[LinearHead] == 3
    assert rank[MixtureOfSoftmaxesHead] > 10


@pytest.mark.parametrize("budget", [ONE_CHUNK, THREE_POSITIONS])
def test_evaluation_says_which_targets_are_the_most_probable(budget: float) -> None:
    head = make_head(budget)
    hidden, targets, weights = make_inputs()
    best = head.log_prob(hidden).argmax(-1)
    targets[0] = best[0]
    with torch.no_grad():
        loss = head.loss(hidden, targets, weights)
    assert loss.correct is not None
    assert torch.equal(loss.correct, best == targets)
    training = head.loss(hidden, targets, weights)
    torch.testing.assert_close(loss.nll, training.nll)
    torch.testing.assert_close(loss.total, training.total.detach())


@pytest.mark.parametrize("budget", [ONE_CHUNK, THREE_POSITIONS])
def test_under_autocast_sums_stay_in_fp32(budget: float) -> None:
    head = make_head(budget)
    hidden, targets, weights = make_inputs()
    exact = head.loss(hidden, targets, weights)
    with torch.autocast("cpu", torch.bfloat16):
        loss = head.loss(hidden, targets, weights)
        log_prob = head.log_prob(hidden)
        with torch.no_grad():
            evaluated = head.loss(hidden, targets, weights)
    assert {tensor.dtype for tensor in (loss.total, loss.nll, log_prob, evaluated.nll)} == {torch.float32}
    torch.testing.assert_close(log_prob.exp().sum(-1), torch.ones(LANES, STEPS))
    torch.testing.assert_close(loss.nll, exact.nll, rtol=2**-5, atol=2**-5)
    torch.testing.assert_close(evaluated.nll, loss.nll)
    for half, full in zip(gradients(loss.total, head, hidden), gradients(exact.total, head, hidden), strict=True):
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, full, rtol=2**-4, atol=2**-4 * float(full.abs().max()))


def test_an_impossible_target_keeps_a_finite_loss() -> None:
    head = MixtureOfSoftmaxesHead(1, 2, experts=2, bias=False)
    nn.init.constant_(head.latent.weight, 100.0)  # h_k = 1
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[200.0], [0.0]]))
    loss = head.loss(torch.ones(1, 1), torch.tensor([1]))
    assert loss.nll.item() == pytest.approx(200)  # whose probability is 0 in fp32
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss.total, list(head.parameters())))


def test_latent_dropout_keeps_one_mask_a_sequence_and_none_in_evaluation() -> None:
    head = MixtureOfSoftmaxesHead(HIDDEN_SIZE, VOCAB_SIZE, experts=EXPERTS, latent_dropout=0.5)
    hidden = torch.randn(LANES, 1, HIDDEN_SIZE).expand(LANES, STEPS, HIDDEN_SIZE)
    latents = head.latents(hidden).view(LANES, STEPS, -1)
    assert torch.equal(latents, latents[:, :1].expand_as(latents))
    assert len({tuple((row == 0).tolist()) for row in latents[:, 0]}) == LANES
    alone = head.latents(hidden.reshape(-1, HIDDEN_SIZE))  # positions whose sequence is not known
    assert len({tuple((row == 0).tolist()) for row in alone.flatten(1)}) == LANES * STEPS
    assert (head.eval().latents(hidden) != 0).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda head: head.loss(torch.zeros(2, 8), torch.tensor([0, 50])), IndexError, "SoftmaxesHead: the target 50 .* 50 ids"),
        (lambda head: head.loss(torch.zeros(2, 7), torch.tensor([0, 1])), ValueError, r"SoftmaxesHead: hidden \(2, 7\)"),
        (lambda _: MixtureOfSoftmaxesHead(8, 50, experts=0), ValueError, "experts=0 leaves nothing to mix"),
        (lambda _: MixtureOfSoftmaxesHead(8, 50, memory_budget_mib=0), ValueError, "SoftmaxesHead: memory_budget_mib=0"),
        (lambda _: MixtureOfSoftmaxesHead(8, 50, latent_dropout=1), ValueError, "a probability below 1, got 1"),
    ],
)
def test_errors(call: Callable[[MixtureOfSoftmaxesHead], HeadLoss], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(make_head())
