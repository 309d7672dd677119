import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding, linear

from lm.heads import HeadLoss, LinearHead
from lm.linear_cross_entropy import chunk_rows

LANES, STEPS, HIDDEN_SIZE, VOCAB_SIZE = 3, 7, 8, 50
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
ONE_CHUNK, THREE_ROWS = 64.0, 3 * VOCAB_SIZE * 4 / 2**20  # MiB


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def make_inputs(device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    hidden = torch.randn(LANES, STEPS, HIDDEN_SIZE, device=device, requires_grad=True)
    return hidden, torch.randint(VOCAB_SIZE, (LANES, STEPS), device=device), torch.rand(LANES, STEPS, device=device)


def reference(head: LinearHead, hidden: Tensor, targets: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """The weighted sum of nll and the nll by torch's own cross-entropy."""
    logits = linear(head.projection(hidden), head.weight, head.bias)
    nll = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    return (nll if weights is None else nll * weights).sum(), nll.detach()


def gradients(total: Tensor, head: LinearHead, hidden: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(total, [hidden, *head.parameters()]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("budget", [ONE_CHUNK, THREE_ROWS])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("projection_size", [None, 5])
@pytest.mark.parametrize("weighted", [True, False])
def test_loss_equals_cross_entropy(device: str, budget: float, bias: bool, projection_size: int | None, weighted: bool) -> None:
    head = LinearHead(HIDDEN_SIZE, VOCAB_SIZE, bias, projection_size, budget).to(device)
    hidden, targets, weights = make_inputs(device)
    expected, expected_nll = reference(head, hidden, targets, weights if weighted else None)
    loss = head.loss(hidden, targets, weights if weighted else None)
    torch.testing.assert_close(loss.total, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(loss.nll, expected_nll, rtol=1e-6, atol=1e-6)
    assert not loss.nll.requires_grad
    for ours, plain in zip(gradients(loss.total, head, hidden), gradients(expected, head, hidden), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("budget", [ONE_CHUNK, THREE_ROWS])
@pytest.mark.parametrize("projection_size", [None, 5])
@pytest.mark.parametrize("hidden_dtype", [torch.float32, torch.bfloat16])
def test_loss_under_autocast_is_as_exact_as_cross_entropy(
    budget: float, projection_size: int | None, hidden_dtype: torch.dtype
) -> None:
    head = LinearHead(HIDDEN_SIZE, VOCAB_SIZE, True, projection_size, budget)
    hidden, targets, weights = make_inputs()
    with torch.autocast("cpu", torch.bfloat16):
        expected, expected_nll = reference(head, hidden.to(hidden_dtype), targets, weights)
        loss = head.loss(hidden.to(hidden_dtype), targets, weights)
    assert loss.total.dtype == loss.nll.dtype == torch.float32
    torch.testing.assert_close(loss.total, expected, rtol=1e-3, atol=0)
    torch.testing.assert_close(loss.nll, expected_nll, rtol=0, atol=2**-8)  # one rounding of a logit below 2
    for ours, plain in zip(gradients(loss.total, head, hidden), gradients(expected, head, hidden), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, plain, rtol=2**-6, atol=2**-6 * float(plain.abs().max()))


@pytest.mark.parametrize("budget", [ONE_CHUNK, 2 * THREE_ROWS])  # three rows of 8 bytes
def test_gradients_in_double_precision(budget: float) -> None:
    head = LinearHead(HIDDEN_SIZE, VOCAB_SIZE, projection_size=5, memory_budget_mib=budget).double()
    hidden, targets, weights = make_inputs()

    def total(hidden: Tensor, *_: Tensor) -> Tensor:
        return head.loss(hidden, targets, weights.double()).total

    assert torch.autograd.gradcheck(total, (hidden.detach().double().requires_grad_(), *head.parameters()), fast_mode=True)


def test_weight_shared_with_an_embedding_gets_both_gradients() -> None:
    head = LinearHead(HIDDEN_SIZE, VOCAB_SIZE, memory_budget_mib=THREE_ROWS)
    shared = head.weight = nn.Parameter(torch.randn(VOCAB_SIZE, HIDDEN_SIZE))
    tokens, targets = torch.randint(VOCAB_SIZE, (2, LANES, STEPS))
    hidden = embedding(tokens, shared).tanh()
    (ours,) = torch.autograd.grad(head.loss(hidden, targets).total, [shared], retain_graph=True)
    (plain,) = torch.autograd.grad(reference(head, hidden, targets, None)[0], [shared])
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_chunks_do_not_change_the_loss() -> None:
    hidden, targets, weights = make_inputs()
    head = LinearHead(HIDDEN_SIZE, VOCAB_SIZE)

    def loss_and_gradients(rows: float) -> list[Tensor]:
        head.memory_budget_mib = rows * VOCAB_SIZE * 4 / 2**20
        loss = head.loss(hidden, targets, weights)
        return [loss.total, loss.nll, *gradients(loss.total, head, hidden)]

    whole = loss_and_gradients(LANES * STEPS)
    for rows in (0.5, 1, 2, 4, 20):
        for ours, expected in zip(loss_and_gradients(rows), whole, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "vocab_size", "dtype", "chunk"),
    [
        (700, 10_000, torch.float32, 700),  # 27 MiB: one chunk
        (700, 33_278, torch.float32, 350),  # 504 rows fit: two equal chunks
        (700, 267_735, torch.float32, 59),  # 62 rows fit: twelve chunks
        (700, 267_735, torch.bfloat16, 32),  # 41 rows fit, half as many bytes again each
        (1440, 7_859, torch.bfloat16, 736),  # 1,423 rows fit: two chunks of a multiple of 32
        (700, 10**6, torch.bfloat16, 11),  # no 32 rows fit
        (0, 10, torch.bfloat16, 1),
        (700, 10**9, torch.float32, 1),
        (0, 10, torch.float32, 1),
    ],
)
def test_chunk_rows(rows: int, vocab_size: int, dtype: torch.dtype, chunk: int) -> None:
    assert chunk_rows(rows, vocab_size, dtype, memory_budget_mib=64) == chunk


@pytest.mark.parametrize("rows", [31, 32, 33, 90])
@pytest.mark.parametrize("chunk", [20, 40, 70, 1000])
def test_rows_filled_up_in_half_precision_do_not_show(rows: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    head = LinearHead(HIDDEN_SIZE, VOCAB_SIZE, label_smoothing=0.1)
    hidden = torch.randn(rows, HIDDEN_SIZE, requires_grad=True)
    targets, weights = torch.randint(VOCAB_SIZE, (rows,)), torch.rand(rows)
    head.memory_budget_mib = chunk * VOCAB_SIZE * 6 / 2**20

    def found() -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            loss = head.loss(hidden, targets, weights)
        assert loss.nll.shape == targets.shape
        return [loss.total, loss.nll, *torch.autograd.grad(loss.total, [hidden, *head.parameters()])]

    filled = found()
    monkeypatch.setattr("lm.linear_cross_entropy.ROW_MULTIPLE", 1)
    for ours, expected in zip(filled, found(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0.01, atol=0.01 * expected.abs().max().item())


def test_log_prob_is_normalised_and_agrees_with_the_loss() -> None:
    head = LinearHead(HIDDEN_SIZE, VOCAB_SIZE, projection_size=5, memory_budget_mib=THREE_ROWS)
    hidden, targets, _ = make_inputs()
    with torch.no_grad():
        log_prob, loss = head.log_prob(hidden), head.loss(hidden, targets)
    torch.testing.assert_close(log_prob.exp().sum(-1), torch.ones(LANES, STEPS))
    torch.testing.assert_close(-log_prob.gather(-1, targets[..., None])[..., 0], loss.nll)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("vocab_size", [1, 15, 16, 17])
def test_rows_longer_than_the_vocabulary_do_not_show(device: str, bias: bool, vocab_size: int) -> None:
    head, hidden = LinearHead(HIDDEN_SIZE, vocab_size, bias).to(device), make_inputs(device)[0]
    with_gradient = head.log_prob(hidden)
    with torch.no_grad():
        without = head.log_prob(hidden)
        assert head.log_prob(hidden[:0]).shape == (0, STEPS, vocab_size)
        torch.testing.assert_close(head.log_prob(hidden[0, 0]), without[0, 0])
    assert with_gradient.requires_grad
    torch.testing.assert_close(without, with_gradient.detach())
    torch.testing.assert_close(without.exp().sum(dim=-1), torch.ones(LANES, STEPS, device=device))
    targets = torch.randint(vocab_size, (LANES, STEPS), device=device)
    loss, (expected, _) = head.loss(hidden, targets), reference(head, hidden, targets, None)
    torch.testing.assert_close(loss.total, expected)
    for ours, plain in zip(gradients(loss.total, head, hidden), gradients(expected, head, hidden), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_evaluation_gives_correct_and_records_nothing() -> None:
    head = LinearHead(HIDDEN_SIZE, VOCAB_SIZE, memory_budget_mib=THREE_ROWS)
    hidden, targets, weights = make_inputs()
    best = head.log_prob(hidden).argmax(-1)
    targets[0] = best[0]
    with torch.no_grad():
        loss = head.loss(hidden, targets, weights)
    assert loss.correct is not None
    assert torch.equal(loss.correct, best == targets)
    assert loss.correct[0].all()
    assert not loss.total.requires_grad
    training = head.loss(hidden, targets, weights)
    assert training.correct is None
    torch.testing.assert_close(loss.total, training.total.detach())
    # Training has the sum's logarithm from a probability, evaluation from log_softmax: the last bit may differ.
    torch.testing.assert_close(loss.nll, training.nll, rtol=1e-6, atol=0)


def test_frozen_parameters_get_no_gradient() -> None:
    head = LinearHead(HIDDEN_SIZE, VOCAB_SIZE).requires_grad_(False)
    hidden, targets, _ = make_inputs()
    assert head.loss(hidden.detach(), targets).correct is not None
    torch.autograd.backward(head.loss(hidden, targets).total)
    assert hidden.grad is not None
    assert head.weight.grad is None


def test_scaled_loss_scales_the_gradient_and_small_weights_survive_half_precision() -> None:
    head = LinearHead(HIDDEN_SIZE, VOCAB_SIZE, memory_budget_mib=THREE_ROWS)
    hidden, targets, weights = make_inputs()
    exact = gradients(head.loss(hidden, targets, weights).total, head, hidden)
    with torch.autocast("cpu", torch.float16):  # whose smallest number is 6e-8
        total = head.loss(hidden, targets, weights * 1e-12).total
    for scaled, expected in zip(gradients(total * 65536, head, hidden), exact, strict=True):
        torch.testing.assert_close(scaled / (65536 * 1e-12), expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))


def test_far_targets_keep_a_finite_loss() -> None:
    head = LinearHead(1, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[200.0], [0.0]]))
    assert head.loss(torch.ones(1, 1), torch.tensor([1])).nll.item() == 200  # the softmax of the target is 0 in fp32


def test_uniform_logits_cost_the_log_of_the_vocabulary() -> None:
    head = LinearHead(HIDDEN_SIZE, VOCAB_SIZE)
    loss = head.loss(torch.zeros(2, HIDDEN_SIZE), torch.tensor([3, 4]), torch.tensor([0.5, 0.0]))
    assert loss.nll.tolist() == pytest.approx([math.log(VOCAB_SIZE)] * 2)
    assert loss.total.item() == pytest.approx(0.5 * math.log(VOCAB_SIZE))


@pytest.mark.parametrize("rows", [0, 4])
def test_nothing_to_learn_from_gives_a_gradient_of_zero(rows: int) -> None:
    head = LinearHead(HIDDEN_SIZE, VOCAB_SIZE)
    total = head.loss(torch.randn(rows, HIDDEN_SIZE), torch.zeros(rows, dtype=torch.long), torch.zeros(rows)).total
    torch.autograd.backward(total)
    assert head.weight.grad is not None
    assert total == 0
    assert not head.weight.grad.any()


def test_second_backward_repeats_the_first() -> None:
    head = LinearHead(HIDDEN_SIZE, VOCAB_SIZE, memory_budget_mib=THREE_ROWS)
    hidden, targets, weights = make_inputs()
    total = head.loss(hidden, targets, weights).total
    first, second = (torch.autograd.grad(total * 3, [head.weight], retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_double_backward_is_refused() -> None:
    head = LinearHead(HIDDEN_SIZE, VOCAB_SIZE)
    hidden, targets, _ = make_inputs()
    (gradient,) = torch.autograd.grad(head.loss(hidden, targets).total.square(), [hidden], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.backward(gradient.sum())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda head: head.loss(torch.zeros(2, 8), torch.tensor([0, 50])), IndexError, "target 50 .* 50 ids"),
        (lambda head: head.loss(torch.zeros(2, 8), torch.tensor([-100, 0])), IndexError, "target -100"),
        (lambda head: head.loss(torch.zeros(2, 3, 8), torch.zeros(6, dtype=torch.long)), ValueError, r"hidden \(2, 3, 8\)"),
        (lambda head: head.loss(torch.zeros(2, 8), torch.zeros(2, dtype=torch.long), torch.ones(1)), ValueError, "one weight"),
        (lambda _: LinearHead(8, 50, memory_budget_mib=0), ValueError, "memory_budget_mib=0"),
    ],
)
def test_errors(call: Callable[[LinearHead], HeadLoss], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(LinearHead(HIDDEN_SIZE, VOCAB_SIZE))


@pytest.mark.parametrize("budget", [ONE_CHUNK, THREE_ROWS])
def test_label_smoothing_equals_that_of_cross_entropy_and_leaves_the_nll_alone(budget: float) -> None:
    head = LinearHead(HIDDEN_SIZE, VOCAB_SIZE, memory_budget_mib=budget, label_smoothing=0.1)
    hidden, targets, weights = make_inputs()
    logits = linear(hidden, head.weight, head.bias).flatten(0, 1)
    smoothed = cross_entropy(logits, targets.flatten(), reduction="none", label_smoothing=0.1).view_as(targets)
    expected = (smoothed * weights).sum()
    loss = head.loss(hidden, targets, weights)
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(loss.nll, reference(head, hidden, targets, weights)[1])
    for ours, plain in zip(gradients(loss.total, head, hidden), gradients(expected, head, hidden), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(head.loss(hidden, targets, weights).total, (loss.nll * weights).sum())


def test_a_label_smoothing_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"LinearHead: label_smoothing=1\.0 is the share of a target that is spread"):
        LinearHead(HIDDEN_SIZE, VOCAB_SIZE, label_smoothing=1.0)
