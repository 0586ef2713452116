"""Before the training run of a quiet cycle: which learning rate, rank and layers, found by successive halving (arXiv
1502.07943): many settings with a little training, the best of them with more.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from runtime.errors import CorrigibleError, Unavailable

Config = TypeVar("Config")
Setting = dict[str, Any]  # changed keys of [learner]

SIZE = 9  # settings of a search
REMEMBERED = 3  # newest winners that are tried again
FACTORS = (0.8, 1.25)  # of lr
RANKS = (4, 8, 16, 32)
LAYERS = ("top:4", "top:8", "top:15", "all")
KEYS = ("lr", "rank", "alpha", "layers")
VARIED = {"lora": ("lr", "rank", "layers"), "full_delta": ("lr", "layers"), "head_only": ("lr",)}  # by kind of adapter


@dataclass(frozen=True)
class Trial(Generic[Config]):
    """One setting, trained on one budget. `loss` is infinite if that failed, for `reason`."""

    config: Config
    budget: float
    loss: float
    reason: str = ""


def search(
    configs: Sequence[Config],
    evaluate: Callable[[Config, float], float],
    *,
    eta: int = 3,
    rungs: Sequence[float] = (1, 3, 9),
) -> tuple[Config, list[Trial[Config]]]:
    """(the best setting, all trials in order). On each rung one of `eta` goes on to the next budget; among equals the
    earlier setting. Raises Unavailable if none of a rung could be trained."""
    alive, history = list(configs), list[Trial[Config]]()
    for budget in rungs:
        trials = [_tried(config, evaluate, budget) for config in alive]
        history += trials
        done = sorted((trial for trial in trials if trial.loss < math.inf), key=lambda trial: trial.loss)
        if not done:
            why = trials[-1].reason if trials else "there is none"
            raise Unavailable(f"the search found no setting that can be trained: {why}; set [learner] tune = false")
        alive = [trial.config for trial in done[: max(1, len(trials) // eta)]]
        if len(alive) == 1:
            break
    return alive[0], history


def _tried(config: Config, evaluate: Callable[[Config, float], float], budget: float) -> Trial[Config]:
    try:
        loss = evaluate(config, budget)
    except CorrigibleError as error:
        return Trial(config, budget, math.inf, str(error))
    if not math.isfinite(loss):
        return Trial(config, budget, math.inf, "the held-out loss is not finite")
    return Trial(config, budget, loss)


def pool(incumbent: Mapping[str, Any], winners: Sequence[Setting], seed: int, layers_count: int) -> list[Setting]:
    """Nine settings that differ from each other, each as what it changes of `incumbent` ([learner]): itself, the newest
    of `winners` (oldest first), its neighbours and at least one at random."""
    draw = random.Random(seed)
    known = ({key: winner[key] for key in KEYS if key in winner} for winner in reversed(winners[-REMEMBERED:]))
    near = itertools.chain([{}], known, _neighbours(incumbent, draw))
    chosen = list(itertools.islice(_distinct(near, incumbent, layers_count), SIZE - 1))
    anywhere = itertools.chain(chosen, _anywhere(incumbent, draw))
    return list(itertools.islice(_distinct(anywhere, incumbent, layers_count), SIZE))


def _distinct(settings: Iterable[Setting], incumbent: Mapping[str, Any], count: int) -> Iterator[Setting]:
    """Each setting once, without what it does not change."""
    seen = set()
    for setting in settings:
        changed = {key: value for key, value in setting.items() if value != incumbent[key]}
        whole = {**incumbent, **changed}
        key = (whole["lr"], whole["rank"], whole["alpha"], _layers(whole["layers"], count))
        if key not in seen:
            seen.add(key)
            yield changed


def _layers(wanted: str, count: int) -> int:
    return count if wanted == "all" else min(count, int(wanted.removeprefix("top:")))


def _neighbours(incumbent: Mapping[str, Any], draw: random.Random) -> Iterator[Setting]:
    """Learning rates around the incumbent's, then with another rank or other layers."""
    rates = [{"lr": _rounded(incumbent["lr"] * factor)} for factor in FACTORS]
    yield from rates
    shapes = [setting for setting in _shapes(incumbent) if setting]
    draw.shuffle(shapes)
    for shape in shapes:
        yield {**draw.choice([{}, *rates]), **shape}


def _shapes(incumbent: Mapping[str, Any]) -> list[Setting]:
    """One other rank or other layers, as far as the kind of adapter has them."""
    varied = VARIED[incumbent.get("adapter", "lora")]
    ranks = [{"rank": rank, "alpha": 2 * rank} for rank in RANKS if rank != incumbent["rank"] and "rank" in varied]
    layers = [{"layers": layers} for layers in LAYERS if layers != incumbent["layers"] and "layers" in varied]
    return [*ranks, *layers]


def _anywhere(incumbent: Mapping[str, Any], draw: random.Random) -> Iterator[Setting]:
    """A third to three times the learning rate, any rank, any layers; without end."""
    varied = VARIED[incumbent.get("adapter", "lora")]
    while True:
        rank = draw.choice(RANKS)
        setting = {
            "lr": _rounded(incumbent["lr"] * 10 ** draw.uniform(-0.5, 0.5)),
            "rank": rank,
            "layers": draw.choice(LAYERS),
        }
        found = {key: value for key, value in setting.items() if key in varied}
        yield {**found, "alpha": 2 * rank} if "rank" in found else found


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")
