"""`corrigible satisfaction`: are people content, and did a release make them happier? In words that need no statistics."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from runtime.cli import link, show
from runtime.cli.options import AsJson, ConfigFile

GOING = {"rising": "going up", "falling": "going down", "no trend": "neither going up nor down"}
AGAINST = {
    "fewer": "happier: fewer complaints",
    "more": "less happy: more complaints",
    "no difference": "no difference that can be told",
    "too few to tell": "too few decisions to tell",
}


def satisfaction(
    days: Annotated[float, typer.Option(min=0.01, help="How far back `lately` goes.")] = 7.0,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Show whether people are content: ratings, corrections, repeated contacts, lately and with every version."""
    found = link.ask(link.settings(config), "satisfaction", days=days)
    if json:
        show.as_json(found)
        return
    for name, label in (("lately", f"the last {found['days']:g} days"), ("all", "in all")):
        show.out.print(f"[bold]{label}[/]")
        for line in lines(found[name]):
            show.out.print(f"  {show.cell(line)}")
    if found["versions"]:
        columns = ["version", "since", "decisions", "corrected", "rating", "came back", "against the version before"]
        show.table(columns, [_row(version) for version in found["versions"]])


def lines(measured: dict[str, Any]) -> list[str]:
    """One group of figures, a sentence each."""
    if not measured["decisions"]:
        return ["no decision yet that people could judge"]
    rated = "nobody rated a decision"
    if measured["ratings"]:
        going = _going(measured["rating_trend"])
        rated = f"{measured['ratings']} ratings, {measured['rating']:+.2f} on average (from -1 to +1); {going}"
    spoke = "nobody spoke"
    if measured["contacts"]:
        share = show.percent(measured["repeated_contacts"])
        spoke = f"{measured['contacts']} times somebody spoke; {measured['repeated']} ({share}) to come back with the same thing"
    judged = "nobody said whether a decision was right"
    if measured["judged"]:
        judged = (
            f"{measured['overridden']} of {measured['judged']} judged decisions were corrected or overridden "
            f"({show.percent(measured['override_rate'])}); corrections: {_going(measured['override_trend'])}"
        )
    return [
        f"{measured['decisions']} decisions, {show.percent(measured['left'])} of them left as they were",
        judged,
        rated,
        spoke,
    ]


def sentence(measured: dict[str, Any]) -> str:
    """The same in one line."""
    if not measured["decisions"]:
        return "no decision yet that they could judge"
    parts = [f"left {show.percent(measured['left'])} of {measured['decisions']} decisions as they were"]
    if measured["ratings"]:
        parts.append(f"rated {measured['rating']:+.2f} ({_going(measured['rating_trend'])})")
    if measured["contacts"]:
        parts.append(f"came back with the same thing {measured['repeated']} of {measured['contacts']} times")
    return ", ".join(parts) + " (last 7 days)"


def _going(trend: dict[str, Any]) -> str:
    if trend["direction"] == "too few to tell":
        return "too few to tell a trend"
    return f"{GOING[trend['direction']]} ({trend['before']:.2f}, then {trend['after']:.2f})"


def _row(version: dict[str, Any]) -> list[Any]:
    measured = version["measured"]
    return [
        version["adapter"], show.when(version["since"]), measured["decisions"],
        f"{measured['overridden']} of {measured['judged']}" if measured["judged"] else "",
        f"{measured['rating']:+.2f}" if measured["ratings"] else "",
        f"{measured['repeated']} of {measured['contacts']}" if measured["contacts"] else "",
        AGAINST[version["complaints"]] if version["before"] else "",
    ]  # fmt: skip
