"""Functions that are taken in another precision than they are asked for in."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from lm.precision import WORTH_WIDENING, WideTanh, tanh_

pytestmark = pytest.mark.usefixtures("seed")


@pytest.mark.parametrize("numbers", [7, WORTH_WIDENING])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_tanh_is_that_of_torch_rounded_once(numbers: int, dtype: torch.dtype) -> None:
    x = (3 * torch.randn(numbers)).to(dtype).requires_grad_()
    y = tanh_(x.clone())
    assert y.dtype == dtype
    torch.testing.assert_close(y, x.detach().double().tanh().to(dtype), rtol=torch.finfo(dtype).eps, atol=0)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    (expected,) = torch.autograd.grad(x.tanh().sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=2 * torch.finfo(dtype).eps)


def test_its_gradient_is_that_of_differences_and_so_is_the_second() -> None:
    x = torch.randn(9, dtype=torch.float64, requires_grad=True)
    assert gradcheck(WideTanh.apply, [x])
    assert gradgradcheck(WideTanh.apply, [x])
