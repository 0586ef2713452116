"""Candidate against champion: the verdict that lets an adapter serve, or does not. A ladder of rungs; the lowest one decides.

integrity -> must-pass cases -> paired holdout -> a part only -> off-policy veto -> drift    (here, on a finished job)
shadow -> canary -> full                                          (then, in service: `ladder`, `runtime.probation`)
"""

from __future__ import annotations

import math
from collections.abc import Callable

from runtime.config import GateConfig
from runtime.learning import offpolicy
from runtime.learning.jobs import Report, Scores
from runtime.messages import Message

CHANCE = 0.25  # a loss less likely than this between equals is taken for real
SURE = 0.05  # a gain less likely than this between equals is taken for shown
STATES = ("rejected", "provisional", "released")  # the worst first


class Verdict(Message, frozen=True, kw_only=True):
    """`released` was shown to be better, `provisional` has yet to show itself (`runtime.probation`), `rejected` is not served."""

    state: str
    reason: str


Rung = Callable[[Report, GateConfig], Verdict | None]


def judge(report: Report, config: GateConfig) -> Verdict:
    """The verdict on a finished job. Both sides were asked by the trainer about the same items. The first rung that rejects
    has the word; else the worst verdict stands, and every rung that has something to say says it."""
    found: list[Verdict] = []
    for rung in LADDER:
        verdict = rung(report, config)
        if verdict is not None and verdict.state == "rejected":
            return verdict
        found.extend([verdict] if verdict is not None else [])
    state = min((verdict.state for verdict in found), key=STATES.index)
    return Verdict(state=state, reason="; ".join(verdict.reason for verdict in found))


def integrity(report: Report, config: GateConfig) -> Verdict | None:
    if not _finite(report.candidate):
        return Verdict(state="rejected", reason="the candidate's scores are not finite")
    return None


def must_pass(report: Report, config: GateConfig) -> Verdict | None:
    """Every case of `[gate] must_pass`."""
    if not report.broken:
        return None
    more = f" (and {len(report.broken) - 1} more)" if len(report.broken) > 1 else ""
    return Verdict(state="rejected", reason=f"must pass, does not: {report.broken[0]}{more}")


def holdout(report: Report, config: GateConfig) -> Verdict:
    """Better than chance between equals would have it (exact McNemar), it is released. With too few held-out items for a
    comparison, the candidate must give the answers it was taught, and no fewer of them than the champion does; such a release
    is provisional. So is one that is better by what may be chance, or a little worse in accuracy but better in log-loss, which
    sees more than right and wrong."""
    candidate, champion = report.candidate, report.champion
    if report.holdout < config.min_holdout:
        return _few(report, config)
    shown = (
        f"held-out accuracy {candidate.accuracy:.1%} against {champion.accuracy:.1%} "
        f"on {report.holdout} items ({report.wins} won, {report.losses} lost)"
    )
    if candidate.accuracy < champion.accuracy - config.margin:
        if candidate.log_loss < champion.log_loss and by_chance(report.wins, report.losses) > CHANCE:
            return Verdict(state="provisional", reason=f"surer, and worse by no more than chance: {shown}")
        return Verdict(state="rejected", reason=f"worse: {shown}")
    if candidate.accuracy == champion.accuracy and candidate.log_loss > champion.log_loss:
        return Verdict(
            state="rejected",
            reason=f"no better: {shown}, log-loss {candidate.log_loss:.3f} against {champion.log_loss:.3f}",
        )
    if by_chance(report.losses, report.wins) > SURE:
        return Verdict(state="provisional", reason=f"by what may be chance: {shown}")
    return Verdict(state="released", reason=shown)


def a_part(report: Report, config: GateConfig) -> Verdict | None:
    if report.partial:
        return Verdict(state="provisional", reason="trained on a part, until a whole cycle")
    return None


def off_policy(report: Report, config: GateConfig) -> Verdict | None:
    """A veto, never a reason to release: it was taught by some of these decisions, so they speak rather for it."""
    found = report.off_policy
    if found is None:
        return None
    told = f"on {found.decisions} decisions by chance that people judged"
    if found.candidate.ess < offpolicy.ENOUGH or found.champion.ess < offpolicy.ENOUGH:
        few = min(found.candidate.ess, found.champion.ess)
        return Verdict(
            state="released", reason=f"not enough to veto it {told} (worth {few:.0f} of {offpolicy.ENOUGH:.0f})"
        )
    earned = f"it would have done right in {found.candidate.dr:.0%} and what serves in {found.champion.dr:.0%}"
    if found.upper < -config.margin:
        worse = f"that it is worse by {-found.upper:.1%} or more is as good as certain"
        return Verdict(state="rejected", reason=f"vetoed: {told} {earned}; {worse}")
    return Verdict(state="released", reason=f"no veto: {told} {earned}")


def drift(report: Report, config: GateConfig) -> Verdict | None:
    """How much would change at once, beyond what new examples account for: if a tenth of all examples is new, a tenth of the
    decisions may change for that. It cannot tell good from bad, so it never rejects."""
    found = report.drift
    if found is None:
        return None
    allowed = min(config.drift + report.new, 1.0)
    shown = f"it changes {found.flips:.0%} of {found.situations} reference decisions"
    if config.drift < 1 and found.flips > allowed:
        return Verdict(
            state="provisional", reason=f"{shown}, more than the {allowed:.0%} that new examples account for"
        )
    return Verdict(state="released", reason=shown)


LADDER: tuple[Rung, ...] = (integrity, must_pass, holdout, a_part, off_policy, drift)


def by_chance(wins: int, losses: int) -> float:
    """Exact one-sided McNemar: the chance of at least so many losses among the items that differ, were both alike."""
    differ = wins + losses
    return sum(math.comb(differ, k) for k in range(losses, differ + 1)) / float(2**differ)


def _few(report: Report, config: GateConfig) -> Verdict:
    recall, before = report.candidate.recall, report.champion.recall
    shown = (
        f"only {report.holdout} held-out items; it gives {recall:.1%} of the answers it was taught, before {before:.1%}"
    )
    if recall < config.min_recall or recall < before:
        return Verdict(state="rejected", reason=shown)
    return Verdict(state="provisional", reason=shown)


def _finite(scores: Scores) -> bool:
    return all(math.isfinite(x) for x in (scores.accuracy, scores.macro_f1, scores.log_loss, scores.recall))
