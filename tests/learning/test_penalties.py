"""The size of an update is that of the matrix it adds, and the running mean is the mean that its formula says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from runtime.learning import penalties
from runtime.learning.penalties import L1, L2, Average

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 12), st.floats(0.1, 8), st.integers(0, 99))
DOUBLE = torch.float64


def factors(rank: int, columns: int, rows: int, seed: int) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(shape, generator=source, dtype=DOUBLE) for shape in ((rank, columns), (rows, rank)))
    return a.requires_grad_(), b.requires_grad_()


@settings(deadline=None)
@given(shape=SHAPES, norm=st.sampled_from([L1, L2]))
def test_the_norm_of_the_factors_is_that_of_their_product(
    shape: tuple[int, int, int, float, int], norm: penalties.Norm
) -> None:
    rank, columns, rows, scale, seed = shape
    a, b = factors(rank, columns, rows, seed)
    short, formed = norm.of_product(a, b, scale), norm.of(scale * (b @ a))
    assert_close(short, formed)
    assert_close(torch.autograd.grad(short, [a, b]), torch.autograd.grad(formed, [a, b]))


def test_norms_by_hand() -> None:
    delta = torch.tensor([[3.0, -4.0], [0.0, 1.0]])
    assert L1.of(delta).item() == 8
    assert L2.of(delta).item() == 26
    a, b = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0], [0.5]])
    assert L1.of_product(a, b, 2.0).item() == pytest.approx(2 * (3 + 6 + 0.5 + 1))
    assert L2.of_product(a, b, 2.0).item() == pytest.approx(4 * (9 + 36 + 0.25 + 1))


def test_the_squared_norm_of_a_large_update_is_found_without_forming_it() -> None:
    a, b = torch.ones(2, 1_000_000), torch.ones(1_000_000, 2)  # the product would take 4 TB
    assert L2.of_product(a, b, 1.0).item() == pytest.approx(4e12)


# --- the running mean ---------------------------------------------------------------------------------------------

VALUES = st.lists(st.floats(-100, 100), min_size=1, max_size=30)


@settings(deadline=None)
@given(values=VALUES, decay=st.floats(0.01, 0.999))
def test_the_mean_weighs_each_step_by_its_age(values: list[float], decay: float) -> None:
    parameter = nn.Parameter(torch.zeros(1, dtype=DOUBLE))
    average = Average([parameter], decay)
    for value in values:
        parameter.data.fill_(value)
        average.update()
    weights = [decay**age for age in reversed(range(len(values)))]
    wanted = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    [found] = average.values()
    assert found.item() == pytest.approx(wanted, abs=1e-9)


@settings(deadline=None)
@given(value=st.floats(-100, 100), decay=st.floats(0.01, 0.999), steps=st.integers(1, 20))
def test_what_does_not_change_is_its_own_mean_from_the_first_step_on(value: float, decay: float, steps: int) -> None:
    parameter = nn.Parameter(torch.full((2,), value, dtype=DOUBLE))
    average = Average([parameter], decay)
    for _ in range(steps):
        average.update()
    assert_close(average.values(), [parameter.detach()])


def test_the_mean_stands_in_only_inside_the_block() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    average = Average([parameter], 0.5)
    for value in (1.0, 4.0):
        parameter.data.fill_(value)
        average.update()
    with average.applied():
        assert parameter.item() == pytest.approx((0.5 * 1 + 4) / 1.5)
    assert parameter.item() == 4
    with pytest.raises(ValueError, match="stop"), average.applied():
        raise ValueError("stop")
    assert parameter.item() == 4


def test_before_the_first_step_the_mean_is_where_training_begins() -> None:
    parameter = nn.Parameter(torch.tensor([7.0]))
    [found] = Average([parameter], 0.9).values()
    parameter.data.fill_(0)
    assert found.item() == 7  # and a copy


def test_the_mean_is_no_part_of_the_gradient() -> None:
    parameter = nn.Parameter(torch.ones(2))
    average = Average([parameter], 0.9)
    average.update()
    assert not any(value.requires_grad for value in average.values())
    with average.applied():
        pass
    parameter.sum().backward()  # type: ignore[no-untyped-call]
    assert parameter.grad is not None
