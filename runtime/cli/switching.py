"""Commands that change what the daemon does: learn, adapters, modes, kill, approve."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runtime.cli import link, show
from runtime.cli.options import AsJson, ConfigFile
from runtime.errors import BadInput, CorrigibleError

if TYPE_CHECKING:
    from runtime.config import Config

POLL = 0.5  # seconds between two looks at a running cycle

adapters = typer.Typer(help="List, show, promote or roll back what was learnt.", no_args_is_help=True)


def learn(
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the cycle to its verdict.")] = True,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Start a learning cycle now."""
    settings = link.settings(config)
    before = link.ask(settings, "cycles", limit=1)
    answer = link.ask(settings, "learn")
    if not answer["started"] or not wait:
        if json:
            show.as_json(answer)
        else:
            show.out.print("a cycle starts" if answer["started"] else f"no new cycle: {show.cell(answer['why'])}")
        return
    cycle = _follow(settings, before[0]["id"] if before else "", quiet=json)
    if json:
        show.as_json(cycle)
    else:
        reason = f": {cycle['reason']}" if cycle.get("reason") else ""
        show.out.print(f"cycle {show.cell(cycle['id'])} {show.cell(cycle['state'])}{show.cell(reason)}")
    if cycle["state"] == "failed":
        raise CorrigibleError(f"cycle {cycle['id']} failed; the serving adapter is untouched")


def _follow(settings: Config, before: str, *, quiet: bool) -> dict[str, Any]:
    """Look at the cycle until it has ended, with a bar on a terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=show.out, transient=True, disable=quiet) as progress:
        bar = progress.add_task("waiting for the learner", total=1.0)
        while True:
            cycle: dict[str, Any] | None = link.ask(settings, "status")["cycle"]
            if cycle is not None and cycle["id"] != before:
                progress.update(
                    bar,
                    completed=cycle["progress"],
                    description=f"learning from {cycle['examples']} examples, epoch {cycle['epoch']:.1f}",
                )
                if cycle["state"] != "running":
                    return cycle
            time.sleep(POLL)


@adapters.command("list")
def adapters_list(config: ConfigFile = None, json: AsJson = False) -> None:
    """List every version on disk, and which one serves."""
    found = link.ask(link.settings(config), "adapters")
    if json:
        show.as_json(found)
        return
    rows = [
        ["▶" if a["serving"] else "", a["id"], "provisional" if a.get("provisional") else "", show.when(a.get("created")), a.get("lineage"), a.get("parent"), _scores(a.get("scores"))]
        for a in found
    ]  # fmt: skip
    show.table(["", "adapter", "", "created", "feedbacks", "parent", "scores"], rows)


def _scores(scores: Any) -> str:
    if not isinstance(scores, dict):
        return ""
    inner = scores.get("candidate")
    flat = inner if isinstance(inner, dict) else scores
    return ", ".join(f"{name} {value:.3f}" for name, value in flat.items() if isinstance(value, float | int))


AdapterId = Annotated[str, typer.Argument(help="An adapter's id, or `base`.")]


@adapters.command("show")
def adapters_show(id: AdapterId, config: ConfigFile = None) -> None:
    """Show one version: what taught it, how it was trained, how it scored (JSON)."""
    show.as_json(link.ask(link.settings(config), "adapter", id=id))


@adapters.command("promote")
def adapters_promote(id: AdapterId, config: ConfigFile = None, json: AsJson = False) -> None:
    """Let this version serve."""
    _released(link.ask(link.settings(config), "promote", id=id), json)


@adapters.command("rollback")
def adapters_rollback(config: ConfigFile = None, json: AsJson = False) -> None:
    """Let the version before the serving one serve again."""
    _released(link.ask(link.settings(config), "rollback"), json)


def _released(release: dict[str, Any], json: bool) -> None:
    if json:
        show.as_json(release)
        return
    show.out.print(f"{show.cell(release['adapter'])} serves now (before: {show.cell(release['previous'])})")


def modes(
    actuator: Annotated[str, typer.Argument(help="The actuator to switch; without it all are listed.")] = "",
    mode: Annotated[str, typer.Argument(help="observe, apprentice, confirm or act")] = "",
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """List the actuators' modes, or switch one: observe, apprentice, confirm or act."""
    settings = link.settings(config)
    if actuator and mode:
        link.ask(settings, "set_mode", actuator=actuator, mode=mode)
    found = {name: now for name, now in link.ask(settings, "modes").items() if actuator in ("", name)}
    if json:
        show.as_json(found)
        return
    shown = link.ask(settings, "status").get("apprentice", {}) if "apprentice" in found.values() else {}
    rows = [
        [name, now, show.apprentice(shown.get(name, []) if now == "apprentice" else [])] for name, now in found.items()
    ]
    show.table(["actuator", "mode", ""], rows)


def kill(
    state: Annotated[
        str, typer.Argument(help="`on` stops every command to actuators, `off` allows them again.")
    ] = "on",
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Throw the kill switch: nothing is commanded until `corrigible kill off`."""
    answer = link.ask(link.settings(config), "kill", on=_on(state))
    if json:
        show.as_json(answer)
        return
    show.out.print("nothing is commanded from now on" if answer["kill"] else "commands are allowed again")


def resolve(
    command_id: Annotated[
        str, typer.Argument(help="The command to settle; without it all that are uncertain are listed.")
    ] = "",
    done: Annotated[bool, typer.Option("--done/--not-done", help="What became of it.")] = True,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Say what became of a command that may have been carried out; it is never told again by itself."""
    settings = link.settings(config)
    answer = link.ask(settings, "resolve", command_id=command_id, done=done) if command_id else None
    found = answer or link.ask(settings, "uncertain")
    if json:
        show.as_json(found)
    elif answer:
        show.out.print(f"{show.cell(command_id)} was {'done' if done else 'not done'}")
    else:
        show.table(["command", "when", "action"], [[c["command_id"], show.when(c["at"]), c["action"]] for c in found])


def safe(
    state: Annotated[
        str, typer.Argument(help="`on` starts the daemon again in safe mode, `off` with everything that is configured.")
    ],
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Start again in safe mode (no model, no learner, no plugins but MQTT, chat and our rules), or leave it."""
    answer = link.ask(link.settings(config), "set_safe", on=_on(state))
    if json:
        show.as_json(answer)
        return
    show.out.print("it starts again in safe mode" if answer["safe"] else "it starts again with everything")


def table(
    state: Annotated[str, typer.Argument(help="`off` lets the model answer even what was corrected literally.")],
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Switch the table of exact corrections on or off, until the daemon starts again."""
    answer = link.ask(link.settings(config), "set_table", on=_on(state))
    if json:
        show.as_json(answer)
        return
    show.out.print("the table answers exact repeats" if answer["table"] else "the model answers everything")


def memory(
    state: Annotated[str, typer.Argument(help="`off` lets nothing that was taught in similar situations take part.")],
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Switch the memory of similar situations on or off, until the daemon starts again."""
    answer = link.ask(link.settings(config), "set_memory", on=_on(state))
    if json:
        show.as_json(answer)
        return
    on = "what was taught in similar situations takes part in decisions"
    show.out.print(on if answer["memory"] else "the weights decide alone (exact repeats are the table's)")


def _on(state: str) -> bool:
    if state not in ("on", "off"):
        raise BadInput(f"say on or off, not {state!r}")
    return state == "on"


def approve(
    command: Annotated[str, typer.Argument(help="A held command's id; without it they are listed.")] = "",
    yes: Annotated[bool, typer.Option("--yes/--no", help="Do it, or do not.")] = True,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """List the commands that wait for a person (mode `confirm`), or answer one."""
    settings = link.settings(config)
    if command:
        answer = link.ask(settings, "approve", command_id=command, yes=yes)
        show.as_json(answer) if json else show.out.print("approved" if answer["approved"] else "denied")
        return
    found = link.ask(settings, "held")
    if json:
        show.as_json(found)
        return
    rows = [[h["command_id"], h["actuator"], h["action"], show.when(h["expires_at"])] for h in found]
    show.table(["command", "actuator", "action", "until"], rows)
