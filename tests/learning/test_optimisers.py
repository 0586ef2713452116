"""Each kind of optimiser is torch's own with our settings, and the learning rate rises and falls as it is asked to."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from runtime.learning import optimisers

KINDS = {
    "adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD, "adafactor": torch.optim.Adafactor,
}  # fmt: skip
SCHEDULES = ("cosine", "linear", "constant")


def made(kind: str, parameter: nn.Parameter, lr: float = 0.05) -> torch.optim.Optimizer:
    return optimisers.make(kind, [parameter], lr=lr, momentum=0.5, weight_decay=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_goes_downhill(kind: str) -> None:
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(4, 3))
    optimiser, start = made(kind, parameter), parameter.pow(2).sum().item()
    for _ in range(30):
        optimiser.zero_grad()
        parameter.pow(2).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert type(optimiser) is KINDS[kind]
    assert parameter.pow(2).sum().item() < start / 2


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("adamw", {"lr": 0.05, "betas": (0.9, 0.99), "weight_decay": 0.01}),
        ("adam", {"lr": 0.05, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0}),
        ("sgd", {"lr": 0.05, "momentum": 0.5, "weight_decay": 0.01}),
        ("adafactor", {"lr": 0.05, "weight_decay": 0.01}),
    ],
)
def test_the_settings_arrive(kind: str, wanted: dict[str, object]) -> None:
    [group] = made(kind, nn.Parameter(torch.zeros(2, 2))).param_groups
    assert {key: group[key] for key in wanted} == wanted


def test_the_first_step_of_plain_descent_is_the_gradient() -> None:
    parameter = nn.Parameter(torch.tensor([2.0]))
    optimiser = optimisers.make("sgd", [parameter], lr=0.1, momentum=0.9, weight_decay=0.0)
    for wanted in (2 - 0.1 * 3, 1.7 - 0.1 * (3 + 0.9 * 3)):  # the second with the momentum of the first
        parameter.grad = torch.tensor([3.0])
        optimiser.step()
        assert parameter.item() == pytest.approx(wanted)


# --- schedule -----------------------------------------------------------------------------------------------------


def rates(kind: str, total: int, warm_up: float = 0.0, floor: float = 0.0) -> list[float]:
    return [optimisers.schedule(kind, step, total, warm_up=warm_up, floor=floor) for step in range(total)]


def test_schedules_by_hand() -> None:
    assert rates("linear", 4) == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert rates("cosine", 4) == pytest.approx([1.0, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)])
    assert rates("linear", 4, floor=0.2) == pytest.approx([1.0, 0.8, 0.6, 0.4])
    assert rates("linear", 10, warm_up=0.2)[:4] == pytest.approx([0.5, 1.0, 1.0, 0.875])
    assert rates("constant", 4, warm_up=0.5, floor=0.1) == pytest.approx([0.5, 1.0, 1.0, 1.0])
    assert rates("cosine", 3, warm_up=0.01)[0] == 1.0  # one step at least, which is the whole rate


@pytest.mark.parametrize("total", [1, 7, 80])
@pytest.mark.parametrize("warm_up", [0.0, 0.06, 0.5])
def test_the_cosine_is_that_of_transformers(total: int, warm_up: float) -> None:
    """Theirs begins its warm-up at nothing, ours a step later: the first step moves too."""
    from transformers import get_cosine_schedule_with_warmup

    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    warm = max(1, round(total * warm_up)) if warm_up else 0
    theirs, found = get_cosine_schedule_with_warmup(optimiser, warm, total), []
    for _ in range(total):
        found.append(theirs.get_last_lr()[0])
        optimiser.step()
        theirs.step()
    assert rates("cosine", total, warm_up)[warm:] == pytest.approx(found[warm:])
    assert rates("cosine", total, warm_up)[: max(warm - 1, 0)] == pytest.approx(found[1:warm])


@given(kind=st.sampled_from(SCHEDULES), total=st.integers(1, 300), warm_up=st.floats(0, 1), floor=st.floats(0, 1))
def test_it_rises_then_falls_and_stays_between_floor_and_one(
    kind: str, total: int, warm_up: float, floor: float
) -> None:
    found = rates(kind, total, warm_up, floor)
    warm = max(1, round(total * warm_up)) if warm_up else 0
    assert found[:warm] == sorted(found[:warm])
    assert found[warm:] == sorted(found[warm:], reverse=True)
    assert all(0 < rate <= 1 + 1e-12 for rate in found[:warm])
    assert all(floor - 1e-12 <= rate <= 1 + 1e-12 for rate in found[warm:])
    assert max(found) == pytest.approx(1.0)
