"""Candidate against champion on the same held-out items: the verdict that lets an adapter serve, or does not."""

from __future__ import annotations

import math

from runtime.config import GateConfig
from runtime.learning.jobs import Report, Scores
from runtime.messages import Message

CHANCE = 0.25  # a loss less likely than this between equals is taken for real
SURE = 0.05  # a gain less likely than this between equals is taken for shown


class Verdict(Message, frozen=True, kw_only=True):
    """`released` was shown to be better, `provisional` has yet to show itself (`runtime.probation`), `rejected` is not served."""

    state: str
    reason: str


def judge(report: Report, config: GateConfig) -> Verdict:
    """The verdict on a finished job. Both sides were scored by the trainer on the same items (`report.holdout` of them).

    It must pass every case of `[gate] must_pass`. Better than chance between equals would have it (exact McNemar), it is
    released. With too few held-out items for a comparison, the candidate must give the answers it was taught, and no
    fewer of them than the champion does; such a release is provisional. So is one that is better by what may be chance,
    or a little worse in accuracy but better in log-loss, which sees more than right and wrong.
    """
    candidate, champion = report.candidate, report.champion
    if not _finite(candidate):
        return Verdict(state="rejected", reason="the candidate's scores are not finite")
    if report.broken:
        more = f" (and {len(report.broken) - 1} more)" if len(report.broken) > 1 else ""
        return Verdict(state="rejected", reason=f"must pass, does not: {report.broken[0]}{more}")
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
