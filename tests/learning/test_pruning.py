"""A truncated adapter is the nearest of its rank, and of the least rank that keeps what was asked for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from runtime.learning.pruning import padded, truncate

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 16), st.integers(1, 16), st.integers(0, 999))


def factors(rank: int, columns: int, rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Of a product whose singular values fall fast, as those of trained adapters do."""
    source = torch.Generator().manual_seed(seed)
    a, b = torch.randn(rank, columns, generator=source), torch.randn(rows, rank, generator=source)
    return a * 0.4 ** torch.arange(rank)[:, None], b


@settings(deadline=None)
@given(shape=SHAPES, energy=st.floats(0.05, 0.999))
def test_what_is_lost_is_at_most_the_share_that_may_be(shape: tuple[int, int, int, int], energy: float) -> None:
    a, b = factors(*shape)
    short_a, short_b = truncate(a, b, energy)
    whole = b @ a
    lost = (whole - short_b @ short_a).pow(2).sum() / whole.pow(2).sum()
    assert lost <= 1 - energy + 1e-5
    assert short_a.shape == (len(short_a), a.shape[1])
    assert short_b.shape == (len(b), len(short_a))
    assert 1 <= len(short_a) <= min(len(a), *whole.shape)


@settings(deadline=None)
@given(shape=SHAPES, energy=st.floats(0.05, 0.999))
def test_it_is_the_best_of_its_rank_and_one_less_would_not_do(shape: tuple[int, int, int, int], energy: float) -> None:
    a, b = factors(*shape)
    short_a, short_b = truncate(a, b, energy)
    u, s, vh = torch.linalg.svd((b @ a).double(), full_matrices=False)
    rank, kept = len(short_a), s.pow(2).cumsum(0) / s.pow(2).sum()
    nearest = (u[:, :rank] * s[:rank]) @ vh[:rank]
    assert_close((short_b @ short_a).double(), nearest, atol=1e-4 * s[0].item(), rtol=1e-4)
    assert kept[rank - 1] >= energy - 1e-5
    assert rank == 1 or kept[rank - 2] < energy + 1e-5


def test_all_of_it_is_the_same_product_of_its_real_rank() -> None:
    a, b = factors(3, 8, 5, 0)
    wide_a, wide_b = torch.cat([a, torch.zeros(5, 8)]), torch.cat([b, torch.randn(5, 5)], 1)  # rank 8 on paper
    short_a, short_b = truncate(wide_a, wide_b, 0.99999)
    assert len(short_a) <= 3
    assert_close(short_b @ short_a, b @ a, atol=2e-2, rtol=0)
    whole_a, whole_b = truncate(a, b, 1.0)
    assert_close(whole_b @ whole_a, b @ a)


def test_half_precision_is_computed_in_whole() -> None:
    a, b = factors(4, 8, 6, 1)
    short_a, short_b = truncate(a.bfloat16(), b.bfloat16(), 0.999)
    assert short_a.dtype == short_b.dtype == torch.float32
    assert_close(short_b @ short_a, b.bfloat16().float() @ a.bfloat16().float(), atol=0.2, rtol=0)


def test_an_update_of_nothing_stays_nothing() -> None:
    a, b = truncate(torch.randn(4, 8), torch.zeros(6, 4), 0.9)
    assert_close(b @ a, torch.zeros(6, 8))


def test_the_product_is_never_formed() -> None:
    a, b = torch.ones(2, 300_000), torch.ones(300_000, 2)  # it would take 360 GB
    short_a, short_b = truncate(a, b, 0.99)
    assert len(short_a) == 1
    assert (short_b[7] @ short_a[:, 9]).item() == pytest.approx(2, rel=1e-3)


@given(shape=SHAPES, more=st.integers(0, 5))
def test_padding_changes_the_rank_and_nothing_else(shape: tuple[int, int, int, int], more: int) -> None:
    a, b = factors(*shape)
    wide_a, wide_b = padded(a, b, len(a) + more)
    assert wide_a.shape == (len(a) + more, a.shape[1])
    assert wide_b.shape == (len(b), len(a) + more)
    assert_close(wide_b @ wide_a, b @ a)
