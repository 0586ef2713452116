"""Commands about what people taught: forget, edit, doubts, vouch, sources."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runtime.cli import link, show
from runtime.cli.asking import resolve
from runtime.cli.options import AsJson, ConfigFile
from runtime.errors import BadInput, CorrigibleError, Unavailable

if TYPE_CHECKING:
    from runtime.config import Config

POLL = 0.5  # seconds between two looks whether the weights are made anew
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the weights are made anew, and show the proof.")]


def forget(
    decision: Annotated[
        str,
        typer.Argument(
            help="A decision's id, or `last`, or one feedback's id; empty with --source, --since or --until."
        ),
    ] = "",
    source: Annotated[str, typer.Option(help="All that this person or device said.")] = "",
    since: Annotated[datetime | None, typer.Option(help="Said at this time or later.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Said before this time.")] = None,
    wait: Wait = False,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Take feedback back; what was learnt from it is unlearnt."""
    settings = link.settings(config)
    found = link.ask(
        settings, "forget", decision_id=resolve(settings, decision) if decision else "", source=source,
        since=since.timestamp() if since else None, until=until.timestamp() if until else None,
    )  # fmt: skip
    _tell(settings, found, f"forgotten: {found['forgotten']} feedbacks", wait=wait, json=json)


def edit(
    feedback: Annotated[str, typer.Argument(help="The feedback's id; `corrigible explain` shows it.")],
    correct: Annotated[str, typer.Option(help="What should have been done, as the list of choices writes it.")] = "",
    accept: Annotated[bool, typer.Option("--accept", help="What was decided was right after all.")] = False,
    note: Annotated[str, typer.Option(help="Why, for people.")] = "",
    wait: Wait = False,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Change what was said: the old word is taken back and the new one said, at once."""
    if bool(correct) == accept:
        raise BadInput("say exactly one of --correct TEXT, --accept")
    settings = link.settings(config)
    found = link.ask(settings, "edit", feedback_id=feedback, action=correct, accept=accept, note=note)
    _tell(settings, found, f"{found['kind']} {found['id']} stands instead of {feedback}", wait=wait, json=json)


def _tell(settings: Config, found: dict[str, Any], done: str, *, wait: bool, json: bool) -> None:
    """What was taken back, and what becomes of the weights."""
    if wait and found["rebuilding"]:
        found = {**found, "proof": _proof(settings, found["at"])}
    if json:
        show.as_json(found)
        return
    weights = "a cycle makes weights without it" if found["rebuilding"] else "no serving weights were taught by it"
    show.out.print(f"{show.cell(done)}; {weights}")
    if found.get("proof"):
        _show(found["proof"])


def _proof(settings: Config, since: float) -> dict[str, Any]:
    """Of the first cycle after this time that unlearnt it. Raises CorrigibleError if a cycle fails."""
    if link.address_of(settings) is None:
        raise Unavailable(
            "it is taken back, but no daemon runs that could make weights without it; `corrigible run` does"
        )
    while True:
        for cycle in reversed(link.ask(settings, "cycles", limit=5)):
            proof = cycle["report"].get("unlearnt")
            if (cycle["ended_at"] or 0.0) < since:
                continue
            if proof is not None and proof["holds"]:
                return dict(proof)
            if cycle["state"] == "failed" and cycle["started_at"] >= since:
                raise CorrigibleError(
                    f"it is taken back, but the weights could not be made anew: {cycle['reason']}; `corrigible learn` tries again"
                )
        time.sleep(POLL)
    raise Unavailable("it is taken back, but no daemon runs that could make weights without it; `corrigible run` does")


def _show(proof: dict[str, Any]) -> None:
    """The proof in words."""
    show.line("proof", "nothing that is left was taught by it" if proof["holds"] else "NOT YET: see `tainted`")
    show.line("serving", f"{proof['serving']}, taught by {proof['named']} of {proof['forgotten']} forgotten feedbacks")
    gone = f"; removed: {', '.join(proof['removed'])}" if proof["removed"] else ""
    show.line("versions", f"{proof['versions']} on disk, {len(proof['tainted'])} of them taught by it{gone}")
    if proof["tainted"]:
        show.line("tainted", ", ".join(proof["tainted"]))
    if proof["unasked"]:
        show.line("asked", f"nothing: {proof['unasked']}")
        return
    show.line("must pass", f"{proof['cases']} cases, {len(proof['cases_changed'])} answered otherwise than before")
    show.line("others", f"{proof['reference']} situations, {proof['reference_changed']} answered otherwise than before")
    for change in (*proof["cases_changed"], *proof["changed"]):
        show.line("", change)


def doubts(config: ConfigFile = None, json: AsJson = False) -> None:
    """Feedback that is kept but not learnt from, and why."""
    found = link.ask(link.settings(config), "doubted")
    if json:
        show.as_json(found)
        return
    if not found:
        show.out.print("nothing is doubted")
        return
    rows = [[d["feedback_id"], d["source"], d["text"], d["said"], d["reason"]] for d in found]
    show.table(["feedback", "source", "situation", "said", "doubted because"], rows)


def vouch(
    names: Annotated[list[str], typer.Argument(help="Ids of doubted feedback, or sources.")],
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Answer for feedback that is doubted, or for all that a source says: it is learnt from again."""
    found = link.ask(link.settings(config), "vouch", names=names)
    if json:
        show.as_json(found)
        return
    show.out.print(f"vouched for {', '.join(map(show.cell, names))}; still doubted: {found['doubted']}")


def sources(config: ConfigFile = None, json: AsJson = False) -> None:
    """Who teaches, how far each is trusted, and how much of what is learnt is theirs."""
    found = link.ask(link.settings(config), "sources")
    if json:
        show.as_json(found)
        return
    if not found:
        show.out.print("nobody has said anything yet")
        return
    rows = [
        [s["source"], s["words"], s["agreed"], s["contradicted"], s["doubted"], show.percent(s["trust"]), show.percent(s["share"])]
        for s in found
    ]  # fmt: skip
    columns = ["source", "words", "others agree", "others contradict", "doubted", "trust", "share of what is learnt"]
    show.table(columns, rows)
