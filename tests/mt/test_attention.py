"""Attention against its equations, written out for one query and one key at a time."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from mt.attention import AdditiveAttention, Attended, Attention, AttentionFactory, DotAttention, Energy, GeneralAttention

QUERY, VALUE, SENTENCES, STEPS, SOURCE = 4, 4, 3, 2, 5
ATTENTIONS: dict[str, AttentionFactory] = {
    "additive": AdditiveAttention,
    "additive-wide": partial(AdditiveAttention, hidden_size=7),
    "coverage": partial(AdditiveAttention, coverage=True),
    "dot": DotAttention,
    "scaled-dot": partial(DotAttention, scaled=True),
    "general": GeneralAttention,
}
every_attention = pytest.mark.parametrize("name", ATTENTIONS)


@pytest.fixture
def problem() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    mask = torch.arange(SOURCE) < torch.tensor([5, 3, 1])[:, None]
    return torch.randn(SENTENCES, STEPS, QUERY), torch.randn(SENTENCES, SOURCE, VALUE), mask


def look(attention: Attention, problem: tuple[Tensor, Tensor, Tensor]) -> Attended:
    queries, values, mask = problem
    coverage = torch.rand(SENTENCES, STEPS, SOURCE) if attention.reads_coverage else None
    found: Attended = attention(queries, attention.keys(values), values, mask, coverage)
    return found


@every_attention
def test_weights_sum_to_one_over_tokens_and_are_zero_on_padding(name: str, problem: tuple[Tensor, Tensor, Tensor]) -> None:
    context, weights = look(ATTENTIONS[name](QUERY, VALUE), problem)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(SENTENCES, STEPS))
    assert (weights[:, :, 3:][1:] == 0).all()
    torch.testing.assert_close(context[2], problem[1][2, :1].expand(STEPS, VALUE))  # one token: nothing to choose


@every_attention
def test_padding_gets_no_gradient(name: str, problem: tuple[Tensor, Tensor, Tensor]) -> None:
    queries, values, mask = problem
    values.requires_grad_()
    look(ATTENTIONS[name](QUERY, VALUE), (queries, values, mask))[0].square().sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert (values.grad[~mask] == 0).all()
    assert (values.grad[mask] != 0).any()


@every_attention
def test_a_row_without_any_token_is_zero_and_not_nan(name: str, problem: tuple[Tensor, Tensor, Tensor]) -> None:
    queries, values, mask = problem
    context, weights = look(ATTENTIONS[name](QUERY, VALUE), (queries, values, torch.zeros_like(mask)))
    assert (weights == 0).all()
    assert (context == 0).all()


def test_scores_are_those_of_the_papers(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    queries, values, _ = problem
    query, value = queries[1, 1], values[1, 2]
    additive = AdditiveAttention(QUERY, VALUE, coverage=True)
    assert additive.from_coverage is not None
    torch.nn.init.normal_(additive.from_coverage)
    seen = torch.rand(SENTENCES, STEPS, SOURCE)
    inside = additive.from_query.weight @ query + additive.from_key.weight @ value + additive.from_key.bias
    expected = additive.energy.weight[0] @ torch.tanh(inside + additive.from_coverage * seen[1, 1, 2])
    torch.testing.assert_close(additive.score(queries, additive.keys(values), seen)[1, 1, 2], expected)
    general = GeneralAttention(QUERY, VALUE)
    torch.testing.assert_close(general.score(queries, general.keys(values), None)[1, 1, 2], query @ general.weight.weight @ value)
    dot = DotAttention(QUERY, VALUE)
    torch.testing.assert_close(dot.score(queries, dot.keys(values), None)[1, 1, 2], query @ value)
    scaled = DotAttention(QUERY, VALUE, scaled=True)
    torch.testing.assert_close(scaled.score(queries, scaled.keys(values), None)[1, 1, 2], query @ value / 2)  # √4


def test_the_gradient_of_an_energy_is_that_of_differences() -> None:
    def energy(x: Tensor, v: Tensor) -> Tensor:
        result: Tensor = Energy.apply(x.clone(), v)  # type: ignore[no-untyped-call]
        return result

    x, v = (torch.randn(size, dtype=torch.float64, requires_grad=True) for size in ((2, 1, 3, 5), (5,)))
    torch.testing.assert_close(energy(x, v), x.tanh() @ v)
    assert gradcheck(energy, [x, v])
    (of_v,) = torch.autograd.grad(energy(x, v).sum(), v)  # whose error is one number, expanded
    torch.testing.assert_close(of_v, x.tanh().sum(dim=(0, 1, 2)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_only_what_is_added_up_is_rounded(dtype: torch.dtype, problem: tuple[Tensor, Tensor, Tensor]) -> None:
    queries, values, _ = problem
    attention = AdditiveAttention(QUERY, VALUE)
    with torch.autocast("cpu", dtype):
        score = attention.score(queries, attention.keys(values), None)
        query, key = attention.from_query(queries).double(), attention.from_key(values).double()
    exact = (query[:, :, None] + key[:, None]).tanh() @ attention.energy.weight[0].double()
    torch.testing.assert_close(score.double(), exact, rtol=1e-6, atol=1e-6)
    score.square().sum().backward()  # type: ignore[no-untyped-call]
    half = [parameter.grad for parameter in attention.parameters()]
    attention.zero_grad()
    attention.score(queries, attention.keys(values), None).square().sum().backward()  # type: ignore[no-untyped-call]
    for mine, parameter in zip(half, attention.parameters(), strict=True):
        assert mine is not None
        assert parameter.grad is not None
        assert (mine - parameter.grad).norm() < 8 * torch.finfo(dtype).eps * parameter.grad.norm()


def test_additive_attention_is_the_concatenation_of_luong(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    queries, values, _ = problem
    attention = AdditiveAttention(QUERY, VALUE)
    both = torch.cat([attention.from_query.weight, attention.from_key.weight], dim=1)
    concatenated = both @ torch.cat([queries[0, 0], values[0, 0]])
    expected = attention.energy.weight[0] @ concatenated.tanh()
    torch.testing.assert_close(attention.score(queries, attention.keys(values), None)[0, 0, 0], expected)


def test_a_dot_product_of_other_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match="DotAttention multiplies states of 4 and 6 features: make the decoder as wide"):
        DotAttention(4, 6)
