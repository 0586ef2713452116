"""The losses are those of TRL: against its own trainers where it is installed, and against what they gave, written down here.

TRL 1.16 computes them inside `compute_loss`, which is called here without its trainer: on log-probabilities as given.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from runtime.learning import losses

LOG_P = torch.tensor([-0.5, -3.25, -12.0, -0.0625, -40.0])
OTHER = torch.tensor([-2.0, -1.5, -9.0, -7.5, -38.0])
REFERENCE = torch.tensor([-1.0, -3.0, -8.0, -0.75, -45.0])
OTHER_REFERENCE = torch.tensor([-1.75, -4.0, -9.5, -5.0, -30.0])
LIKED = torch.tensor([True, False, True, False, True])
AWAY, AWAY_REFERENCE = torch.tensor([-4.0, -6.0, -2.5]), torch.tensor([-5.0, -6.5, -3.25])  # mean difference 0.75
BETA = 0.1

# what TRL 1.16.0 gave for the tensors above
SFT = torch.tensor([0.5, 3.25, 12.0, 0.0625, 40.0])
DPO = torch.tensor([0.6563501358, 0.8400707245, 0.9432489872, 0.5464189649, 0.2410084456])
KTO = torch.tensor([0.5062497258, 0.4750208259, 0.6165664792, 0.4984374642, 0.3953208923])


def test_fine_tuning_is_that_of_trl() -> None:
    assert_close(losses.sft(LOG_P), SFT)


def test_dpo_is_that_of_trl() -> None:
    assert_close(losses.dpo(LOG_P, OTHER, REFERENCE, OTHER_REFERENCE, BETA), DPO)


def test_kto_is_that_of_trl() -> None:
    divergence = (AWAY - AWAY_REFERENCE).mean()
    assert_close(losses.kto(LOG_P, REFERENCE, LIKED, divergence, BETA), KTO)


class Table:
    """A model that gives these log-probabilities, one token a row."""

    def __init__(self, log_p: Tensor) -> None:
        self._log_p = log_p[:, None]

    def __call__(self, **_: Any) -> SimpleNamespace:
        found, nothing = self._log_p, torch.zeros_like(self._log_p).detach()
        mask = torch.ones_like(nothing, dtype=torch.bool)
        return SimpleNamespace(
            log_probs=found, entropy=nothing, mean_logits=nothing, is_top1=mask, label_mask=mask, aux_loss=None
        )


def trainer(**settings: Any) -> MagicMock:
    """As much of a trainer as its loss looks at; on one device, so that gathering changes nothing."""
    made = MagicMock(aux_loss_enabled=False, beta=BETA, precompute_ref_logps=True, _tp_size=1, _total_train_tokens=0)
    made.accelerator.device = torch.device("cpu")
    made.accelerator.gather = made.accelerator.gather_for_metrics = lambda tensor: tensor
    made.accelerator.parallelism_config = None
    for name, value in settings.items():
        setattr(made, name, value)
    return made


def rows(count: int) -> dict[str, Tensor]:
    """A prompt of one token and an answer of one."""
    ids = torch.ones(count, 2, dtype=torch.long)
    return {"input_ids": ids, "attention_mask": ids, "completion_mask": torch.tensor([[0, 1]] * count)}


def trl_sft(log_p: Tensor) -> Tensor:
    trl = pytest.importorskip("trl.trainer.sft_trainer")
    self = trainer(compute_loss_func=None, label_smoother=None, num_virtual_tokens=0)
    self.args = SimpleNamespace(loss_type="nll", average_tokens_across_devices=False)
    inputs = {**rows(len(log_p)), "labels": torch.ones(len(log_p), 2, dtype=torch.long)}
    return trl.SFTTrainer.compute_loss(self, Table(log_p), inputs)  # type: ignore[no-any-return]


def trl_dpo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> Tensor:
    trl = pytest.importorskip("trl.trainer.dpo_trainer")
    self = trainer(
        loss_types=["sigmoid"], loss_weights=[1.0], ld_alpha=None, f_divergence_type="reverse_kl", use_weighting=False
    )
    inputs = {**rows(2 * len(chosen)), "ref_chosen_logps": ref_chosen, "ref_rejected_logps": ref_rejected}
    return trl.DPOTrainer._compute_loss(self, Table(torch.cat([chosen, rejected])), inputs, False)  # type: ignore[no-any-return]


def trl_kto(log_p: Tensor, reference: Tensor, liked: Tensor) -> Tensor:
    trl = pytest.importorskip("trl.trainer.kto_trainer")
    self = trainer(loss_type="kto", calculate_KL=True, desirable_weight=1.0, undesirable_weight=1.0)
    self._compute_kl_logps = lambda model, batch: AWAY
    inputs = {**rows(len(log_p)), "label": liked, "ref_logps": reference, "ref_KL_logps": AWAY_REFERENCE}
    return trl.KTOTrainer._compute_loss(self, Table(log_p), inputs, False)  # type: ignore[no-any-return]


def each(loss: Any, *tensors: Tensor) -> Tensor:
    """TRL returns means: of one item it is the item's."""
    return torch.stack([loss(*(tensor[i : i + 1] for tensor in tensors)) for i in range(len(tensors[0]))])


def test_trl_itself_gives_the_same_fine_tuning() -> None:
    assert_close(each(trl_sft, LOG_P), losses.sft(LOG_P))


def test_trl_itself_gives_the_same_dpo() -> None:
    given_ = (LOG_P, OTHER, REFERENCE, OTHER_REFERENCE)
    assert_close(each(trl_dpo, *given_), losses.dpo(*given_, BETA))
    assert_close(slope(lambda p: trl_dpo(p, *given_[1:])), slope(lambda p: losses.dpo(p, *given_[1:], BETA).mean()))


def test_trl_itself_gives_the_same_kto() -> None:
    divergence = (AWAY - AWAY_REFERENCE).mean()
    assert_close(each(trl_kto, LOG_P, REFERENCE, LIKED), losses.kto(LOG_P, REFERENCE, LIKED, divergence, BETA))
    ours = slope(lambda p: losses.kto(p, REFERENCE, LIKED, divergence, BETA).mean())
    assert_close(slope(lambda p: trl_kto(p, REFERENCE, LIKED)), ours)


def slope(loss: Any) -> Tensor:
    """By how much the loss changes with each log-probability."""
    log_p = LOG_P.clone().requires_grad_()
    [found] = torch.autograd.grad(loss(log_p), [log_p])
    return found


def test_a_negative_estimate_of_the_divergence_counts_as_none() -> None:
    below, none = torch.tensor(-3.0), torch.tensor(0.0)
    assert_close(losses.kto(LOG_P, REFERENCE, LIKED, below, BETA), losses.kto(LOG_P, REFERENCE, LIKED, none, BETA))


# --- ratings ------------------------------------------------------------------------------------------------------


def test_a_rare_act_counts_more_but_at_most_clip_times() -> None:
    log_p, reward = torch.full((3,), -2.0), torch.ones(3)
    found = losses.weighted_reward(log_p, reward, torch.tensor([1.0, 0.5, 0.01]))
    assert found.tolist() == pytest.approx([2.0, 4.0, 10.0])
    halved = losses.weighted_reward(log_p, reward / 2, torch.tensor([1.0, 0.5, 0.01]), clip=3.0)
    assert halved.tolist() == pytest.approx([1.0, 2.0, 3.0])


def test_what_was_disliked_becomes_less_likely_by_a_bounded_loss() -> None:
    log_p = torch.tensor([0.9, 0.5, 0.1]).log()
    found = losses.weighted_reward(log_p, torch.tensor([-1.0, -1.0, -0.5]), torch.full((3,), 0.01))
    assert found.tolist() == pytest.approx([-0.3 * math.log(0.1), -0.3 * math.log(0.5), -0.15 * math.log(0.9)])
    certain = losses.weighted_reward(torch.zeros(1), -torch.ones(1), torch.ones(1))
    assert 0 < certain.item() < 5


@given(p=st.floats(0.01, 0.99), reward=st.floats(-1, 1), propensity=st.floats(0.01, 1))
def test_a_rating_moves_the_answer_the_way_it_points(p: float, reward: float, propensity: float) -> None:
    log_p = torch.tensor([p]).log().requires_grad_()
    found = losses.weighted_reward(log_p, torch.tensor([reward]), torch.tensor([propensity])).sum()
    [gradient] = torch.autograd.grad(found, [log_p])
    assert math.isfinite(found.item())
    assert found.item() >= 0
    assert math.copysign(1, -gradient.item()) == math.copysign(1, reward) or abs(gradient.item()) < 1e-6
