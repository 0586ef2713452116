"""The last rungs of a release, for people and for probation: shadow -> canary -> full.

In shadow the champion decides and the candidate is asked about the same situations in silence; as a canary it makes its share
of the decisions; in full it makes all. Only a provisional release that has a trained version to prove itself against climbs
here: one that was shown to be better by the held-out items serves in full at once, and so does the first after the base model.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec.structs import replace

from runtime.journal import Journal
from runtime.learning.monitor import UP, Trial
from runtime.messages import Message, Release

WATCHED, TRIED = "shadow", "probation"  # the journal's notes of what was seen, and of the trial under way
Rung = Literal["shadow", "canary", "full"]


class Watch(Message, frozen=True, kw_only=True):
    """What both versions would have done in the situations since the release: in shadow, and as a canary."""

    release: str
    situations: int = 0
    differ: int = 0
    over: float = 0.0  # when the shadow was over; what was decided before says nothing in the trial

    def after(self, same: bool, at: float, shadow: int) -> Watch:
        seen = self.situations + 1
        return replace(self, situations=seen, differ=self.differ + (not same), over=at if seen == shadow else self.over)


async def watched(journal: Journal, release: Release) -> Watch:
    """As far as it has come; found again after a restart."""
    found = await journal.metadata(WATCHED)
    watch = msgspec.convert(found, Watch) if found else None
    return watch if watch is not None and watch.release == release.id else Watch(release=release.id)


async def tried(journal: Journal, release: Release, watch: Watch) -> Trial:
    """As far as the trial on this rung has come: what was seen in shadow does not count once it acts."""
    fresh = Trial(release=release.id, acting=rung(release, watch) != "shadow")
    found = await journal.metadata(TRIED)
    trial = msgspec.convert(found, Trial) if found else fresh
    return trial if (trial.release, trial.acting) == (fresh.release, fresh.acting) else fresh


def rung(release: Release, watch: Watch) -> Rung:
    if not release.provisional or release.against in ("", "base", release.adapter):
        return "full"
    return "shadow" if watch.situations < release.shadow else "canary"


def says(release: Release, watch: Watch, trial: Trial, share: float) -> str:
    """Where it stands and what it waits for, in a sentence."""
    otherwise = f"of {watch.situations} situations it would have decided {watch.differ} otherwise"
    match rung(release, watch):
        case "shadow":
            left = release.shadow - watch.situations
            return f"shadow: {release.against} decides, {release.adapter} is only asked; {otherwise}; {left} more, then it takes part"
        case "canary":
            need = max(UP - (trial.wins - trial.losses), 1)
            return f"canary: {release.adapter} makes {share:.0%} of the decisions, {release.against} the others; {otherwise}; {need} more wins than losses and it makes all"
        case _:
            return f"full: {release.adapter} makes all decisions"
