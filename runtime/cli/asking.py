"""Commands that look and correct: status, decisions, feedback, forget, doubts, vouch."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runtime.cli import link, show
from runtime.cli.options import AsJson, ConfigFile, DecisionId
from runtime.errors import BadInput, NotFound

if TYPE_CHECKING:
    from runtime.config import Config


def status(config: ConfigFile = None, json: AsJson = False) -> None:
    """Show what runs, what serves, and what has been counted."""
    settings = link.settings(config)
    found = link.ask(settings, "status")
    if json:
        show.as_json(found)
        return
    parts = ", ".join(f"{name} {'ready' if ok else 'not ready'}" for name, ok in found.get("ready", {}).items())
    up = f", pid {found['pid']}, up {found['uptime']:.0f} s" if found["pid"] else ""
    show.line("agent", f"{found['agent']}, version {found['version']}{up}")
    if parts:
        show.line("parts", parts)
    show.line("adapter", found["adapter"] + (" (provisional)" if found.get("provisional") else ""))
    if trial := found.get("trial"):
        show.line("trial", "{wins} won and {losses} lost of {events} situations that people judged".format(**trial))
    if found.get("why"):
        show.line("because", found["why"])
    if found.get("doubted"):
        liars = f", all of {', '.join(found['distrusted'])} among it" if found.get("distrusted") else ""
        show.line("doubted", f"{found['doubted']} feedbacks{liars}; see `corrigible doubts`")
    show.line(
        "modes", ", ".join(f"{actuator}={mode}" for actuator, mode in found.get("modes", {}).items()) or "no actuators"
    )
    show.line("kill switch", "ON: nothing is commanded" if found.get("kill") else "off")
    show.line("counted", ", ".join(f"{count} {name}" for name, count in found.get("counts", {}).items()))
    show.line("learning", _cycle(found.get("cycle"), found.get("feedback_since", 0)))
    for reason in found.get("degraded", []):
        show.line("degraded", reason)
    page = link.page_of(settings)
    if page:
        show.line("page", page)
    if found.get("plugins"):
        rows = [[p["name"], p["use"], ", ".join(p["roles"]), p["state"], p["restarts"]] for p in found["plugins"]]
        show.table(["plugin", "use", "roles", "state", "restarts"], rows)


def _cycle(cycle: dict[str, Any] | None, since: int) -> str:
    if cycle is None:
        return f"no cycle yet, {since} new feedbacks"
    reason = f" ({cycle['reason']})" if cycle.get("reason") else ""
    done = f" {100 * cycle.get('progress', 0):.0f} %" if cycle["state"] == "running" else ""
    return f"cycle {cycle['id']} {cycle['state']}{done}{reason}, {since} new feedbacks"


def decisions(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=500, help="How many, newest first.")] = 20,
    scope: Annotated[str, typer.Option(help="Only those of this scope.")] = "",
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """List the newest decisions."""
    found = link.ask(link.settings(config), "decisions", limit=limit, scope=scope)
    if json:
        show.as_json(found)
        return
    for row in found:
        _print(row)


def _print(row: dict[str, Any]) -> None:
    """Two lines, for a situation is longer than a column is wide."""
    facts = [row["by"], row["adapter"], show.percent(row["p_model"]), row["outcome"], ", ".join(row["feedback"])]
    told = "  ".join(show.cell(fact) for fact in facts if fact)
    show.out.print(f"[dim]{show.when(row['at'])[11:]}[/]  {show.cell(row['id'])}  {show.cell(row['scope'])}  {told}")
    show.out.print(f"          {show.cell(row['text'])} → [bold]{show.cell(row['action'])}[/]")


def feedback(
    decision: DecisionId,
    correct: Annotated[str, typer.Option(help="What should have been done, as the list of choices writes it.")] = "",
    accept: Annotated[bool, typer.Option("--accept", help="The decision was right.")] = False,
    rating: Annotated[float | None, typer.Option(min=-1, max=1, help="From -1 (harmful) to 1 (perfect).")] = None,
    prefer: Annotated[str, typer.Option(help="This action rather than the one of --over.")] = "",
    over: Annotated[str, typer.Option(help="The action that --prefer is better than; default: what was decided.")] = "",
    note: Annotated[str, typer.Option(help="Why, for people.")] = "",
    source: Annotated[str, typer.Option(help="Who says so.")] = "person",
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Correct, accept, rate or compare a decision."""
    given = [bool(correct), accept, rating is not None, bool(prefer)]
    if sum(given) != 1:
        raise BadInput("say exactly one of --correct TEXT, --accept, --rating NUMBER, --prefer TEXT")
    kind = ("correction", "acceptance", "rating", "preference")[given.index(True)]
    settings = link.settings(config)
    id = resolve(settings, decision)
    if prefer and not over:
        over = link.ask(settings, "explain", decision_id=id)["action"]
    answer = link.ask(
        settings, "feedback", decision_id=id, kind=kind, action=correct or prefer, rejected=over, rating=rating, note=note, source=source
    )  # fmt: skip
    if json:
        show.as_json(answer)
        return
    show.out.print(
        f"{show.cell(answer['kind'])} {show.cell(answer['id'])} of decision {show.cell(id)} is in the journal"
    )


def resolve(settings: Config, decision: str) -> str:
    if decision != "last":
        return decision
    newest = link.ask(settings, "decisions", limit=1)
    if not newest:
        raise NotFound("there is no decision yet")
    return str(newest[0]["id"])


def forget(
    decision: Annotated[
        str, typer.Argument(help="A decision's id, or `last`; empty with --source, --since or --until.")
    ] = "",
    source: Annotated[str, typer.Option(help="All that this person or device said.")] = "",
    since: Annotated[datetime | None, typer.Option(help="Said at this time or later.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Said before this time.")] = None,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Take feedback back; what was learnt from it is unlearnt."""
    settings = link.settings(config)
    found = link.ask(
        settings, "forget", decision_id=resolve(settings, decision) if decision else "", source=source,
        since=since.timestamp() if since else None, until=until.timestamp() if until else None,
    )  # fmt: skip
    if json:
        show.as_json(found)
        return
    weights = "a cycle makes weights without it" if found["rebuilding"] else "no serving weights were taught by it"
    show.out.print(f"forgotten: {found['forgotten']} feedbacks; {weights}")


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
