"""Commands that look and correct: status, decisions, feedback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from runtime.cli import contentment, link, show
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
    _standing(found)
    _version(found)
    _acting(found)
    _alarms(found)
    if found.get("satisfaction"):
        show.line("people", contentment.sentence(found["satisfaction"]))
    if "memory" in found:
        show.line("answers", _judges(found))
    show.line("counted", ", ".join(f"{count} {name}" for name, count in found.get("counts", {}).items()))
    show.line("learning", _cycle(found.get("cycle"), found.get("feedback_since", 0)))
    for reason in found.get("degraded", []):
        show.line("degraded", reason)
    page = link.page_of(settings)
    if page:
        show.line("page", page)
    _plugins(found)


def _standing(found: dict[str, Any]) -> None:
    """Who it is, and whether it is well."""
    up = f", pid {found['pid']}, up {found['uptime']:.0f} s" if found["pid"] else ""
    show.line("agent", f"{found['agent']}, version {found['version']}{up}")
    if found.get("condition"):
        show.line("stands", ": ".join([found["condition"], "; ".join(found["causes"])]).rstrip(": "))
    parts = ", ".join(f"{name} {'ready' if ok else 'not ready'}" for name, ok in found.get("ready", {}).items())
    if parts:
        show.line("parts", parts)


def _version(found: dict[str, Any]) -> None:
    """What serves, how it does on trial, and what is not believed."""
    show.line("adapter", found["adapter"] + (" (provisional)" if found.get("provisional") else ""))
    if trial := found.get("trial"):
        show.line("trial", "{wins} won and {losses} lost of {events} situations that people judged".format(**trial))
    if found.get("waits_for"):
        show.line("rung", found["waits_for"])
    if changes := found.get("changes"):
        count = round(changes["flips"] * changes["situations"])
        show.line(
            "changes", f"the newest version decides {count} of {changes['situations']} reference situations otherwise"
        )
    if found.get("why"):
        show.line("because", found["why"])
    if drift := found.get("drift"):
        learnt = "learnt since" if drift["learnt"] else "to be learnt as soon as a cycle may begin"
        show.line("changed", f"{show.when(drift['at'])}: {drift['reason']} ({learnt})")
    if found.get("doubted"):
        liars = f", all of {', '.join(found['distrusted'])} among it" if found.get("distrusted") else ""
        show.line("doubted", f"{found['doubted']} feedbacks{liars}; see `corrigible doubts`")


def _acting(found: dict[str, Any]) -> None:
    """What it may do by itself."""
    modes = ", ".join(f"{actuator}={mode}" for actuator, mode in found.get("modes", {}).items())
    show.line("modes", modes or "no actuators")
    for actuator, actions in found.get("apprentice", {}).items():
        show.line("apprentice", f"{actuator}: {show.apprentice(actions)}")
    show.line("kill switch", "ON: nothing is commanded" if found.get("kill") else "off")


def _plugins(found: dict[str, Any]) -> None:
    rows = [
        [p["name"], p["use"], ", ".join(p["roles"]), p["state"], p["restarts"], _refused(p)]
        for p in found.get("plugins", [])
    ]
    if rows:
        show.table(["plugin", "use", "roles", "state", "restarts", "refused"], rows)


def _alarms(found: dict[str, Any]) -> None:
    """What was lost, never came, or nobody knows of."""
    for alarm in found["alarms"]:
        show.line(alarm["kind"], alarm["text"])
    if found.get("uncertain"):
        show.line("uncertain", f"{found['uncertain']} commands may have been carried out; see `corrigible resolve`")


def _refused(plugin: dict[str, Any]) -> str:
    """What was not taken from an isolated one."""
    return ", ".join(f"{plugin[what]} {what}" for what in ("rejected", "shed") if plugin.get(what))


def _judges(found: dict[str, Any]) -> str:
    """Who takes part in decisions beside the weights."""
    table, memory = ("on" if found[name] else "off" for name in ("table", "memory"))
    return f"table of exact corrections {table}, memory of similar situations {memory}"


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
    """The id of a decision that a person may call `last`."""
    if decision != "last":
        return decision
    newest = link.ask(settings, "decisions", limit=1)
    if not newest:
        raise NotFound("there is no decision yet")
    return str(newest[0]["id"])
