import pytest
import torch

from mt.selection import top


@pytest.mark.parametrize("count", [1, 2, 3, 6, 11])
@pytest.mark.parametrize("size", [1, 5, 63, 64, 255, 256, 257, 400, 1000, 1537, 8000])
def test_the_largest_are_those_of_topk(size: int, count: int) -> None:
    """With the largest at either end of a row, and next to each other."""
    torch.manual_seed(0)
    values = torch.stack([torch.randperm(size), torch.arange(size), -torch.arange(size)]).double().view(3, 1, size)
    found, places = top(values, count)
    expected = values.topk(min(count, size))
    assert torch.equal(found, expected.values)
    assert torch.equal(places, expected.indices)


def test_of_equal_entries_each_is_found_once() -> None:
    values = torch.zeros(4, 1000)
    values[:, ::3] = 1
    values[3] = -torch.inf
    found, places = top(values, 5)
    assert (found[:3] == 1).all()
    assert (found[3] == -torch.inf).all()
    assert torch.equal(values.gather(1, places), found)
    assert all(len(set(row)) == 5 for row in places.tolist())


def test_a_slice_of_something_larger_is_not_copied_from_the_wrong_place() -> None:
    values = torch.randn(6, 3, 700)[::2, 1:, 20:650]
    found, places = top(values, 2)
    assert torch.equal(found, values.topk(2).values)
    assert torch.equal(values.gather(-1, places), found)
