"""Commands that say why: `explain` a decision, with proof and picture if asked for, and what changed between two versions."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runtime.cli import link, show
from runtime.cli.asking import resolve
from runtime.cli.options import AsJson, ConfigFile, DecisionId
from runtime.errors import BadInput, CorrigibleError, NotFound

if TYPE_CHECKING:
    from runtime.config import Config

POLL = 0.5  # seconds between two looks at a running proof
PICTURES = (".png", ".svg")
FLIPS = 10  # decisions that are listed
SAME = 0.05  # nats below which a piece made no difference


def explain(
    decision: DecisionId = "last",
    prove: Annotated[
        bool, typer.Option("--prove", help="Train again without the lessons that caused it, and see whether it flips.")
    ] = False,
    picture: Annotated[Path | None, typer.Option(help="Draw it into this file (.png or .svg).")] = None,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Show why a decision was taken: what of the situation mattered, what taught it, what changed since."""
    if picture is not None and picture.suffix.lower() not in PICTURES:
        raise BadInput(f"--picture {picture}: write .png or .svg at the end of its name")
    settings = link.settings(config)
    found = _asked(settings, resolve(settings, decision), prove=prove, quiet=json)
    if picture is not None:
        from runtime.cli import picture as pictures

        pictures.draw(found, picture)
    if json:
        show.as_json(found)
        return
    _decided(found)
    _mattered(found["mattered"])
    _taught(found)
    if found["changes"]:
        _changed(found["changes"])
    if found["proof"]:
        _proven(found["proof"])
    if picture is not None:
        show.out.print(f"drawn: {show.cell(picture)}")


def _asked(settings: Config, decision: str, *, prove: bool, quiet: bool) -> dict[str, Any]:
    """All that is known, and what it costs some seconds to find out."""
    found: dict[str, Any] = link.ask(settings, "explain", decision_id=decision)
    with show.err.status("asking the model again"):
        try:
            mattered = link.ask(settings, "mattered", decision_id=decision)
        except CorrigibleError as error:
            mattered = {"note": str(error), "pieces": []}
        try:
            changes = link.ask(settings, "changes", id=found["adapter"]) if found["adapter"] != "base" else None
        except NotFound:
            changes = None  # it is no longer on disk
    return {**found, "mattered": mattered, "changes": changes, "proof": _proof(settings, decision, prove, quiet)}


def _proof(settings: Config, decision: str, prove: bool, quiet: bool) -> dict[str, Any] | None:
    """A new one, followed to its end, or the one there is."""
    if not prove:
        try:
            return dict(link.ask(settings, "proof", decision_id=decision))
        except CorrigibleError:
            return None
    link.ask(settings, "prove", decision_id=decision)
    proof = _follow(settings, decision, quiet)
    if proof["state"] == "failed":
        raise CorrigibleError(f"there is no proof: {proof['why']}")
    return proof


def _follow(settings: Config, decision: str, quiet: bool) -> dict[str, Any]:
    """Look at the proof until it has ended, with a bar on a terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=show.err, transient=True, disable=quiet) as progress:
        bar = progress.add_task("waits for its turn", total=1.0)
        while True:
            proof: dict[str, Any] = link.ask(settings, "proof", decision_id=decision)
            if proof["state"] != "running":
                return proof
            progress.update(bar, completed=proof["progress"], description=proof["step"])
            time.sleep(POLL)


def _decided(found: dict[str, Any]) -> None:
    show.line("decision", f"{found['id']} of {show.when(found['at'])} in {found['scope']}")
    show.line("situation", found["text"])
    show.line("action", found["action"])
    show.line("decided by", found["by"] + (f": {found['note']}" if found.get("note") else ""))
    table = found.get("table")
    if table:
        show.line(
            "table",
            f"a {table['source'] or 'person'}'s correction of {show.when(table['at'])} ({table['feedback_id']})",
        )
    show.line("adapter", _lineage(found["adapter"], found.get("lineage")))
    show.line(
        "chance",
        f"the model gave it {show.percent(found['p_model']) or 'no figure'}; it was taken with {show.percent(found['p_behaviour'])}",
    )
    if found.get("chance") is not None:
        plausible = ", ".join(found["plausible"]) or "not known yet: too little feedback was held out"
        show.line("doubt", f"right with a chance of {show.percent(found['chance'])}; plausible: {plausible}")
    if found.get("question"):
        show.line("asked", " or ".join(found["question"]) + "; `corrigible feedback --correct` answers")
    show.line("took", ", ".join(f"{name} {ms:.1f} ms" for name, ms in found["timings_ms"].items()))
    for outcome in found.get("outcomes", []):
        show.line("outcome", outcome["status"] + (f": {outcome['reason']}" if outcome.get("reason") else ""))
    for given in found.get("given", []):
        show.line("feedback", f"{given['kind']} from {given['source']} at {show.when(given['at'])} ({given['id']})")
    rows = [
        [c["action"], show.percent(c.get("p")), show.percent(c["p_model"]), show.percent(c.get("p_memory"))]
        for c in found["candidates"]
    ]
    if rows:
        show.table(["candidate", "p", "by the model", "by the memory"], rows)


def _lineage(adapter: str, lineage: dict[str, Any] | None) -> str:
    if not lineage:
        return adapter
    taught = lineage.get("lineage")
    return (
        adapter
        + (f", taught by {taught} feedbacks" if taught is not None else "")
        + (f", {lineage['note']}" if lineage.get("note") else "")
    )


def _mattered(found: dict[str, Any]) -> None:
    rows = [
        [piece["text"], made(piece), times(piece["weights"]), piece["instead"]]
        for piece in sorted(found["pieces"], key=strength, reverse=True)
    ]
    if rows:
        against = f" rather than {found['against']}" if found["against"] else ""
        title = f"what made {found['action']}{against} likelier, each piece left out once"
        show.table(["piece of the situation", "it made it", "by the weights alone", "without it"], rows, title=title)
    if found.get("note"):
        show.line("note", found["note"])


def strength(piece: dict[str, Any]) -> float:
    """How far a piece spoke for the action, in nats; of words that nobody rivals, by the weights; 0 if nobody can tell."""
    return float((piece["weights"] if piece["both"] is None else piece["both"]) or 0.0)


def comparable(piece: dict[str, Any]) -> bool:
    """False where what is written without the piece leaves nothing to compare the action with."""
    return piece["weights"] is not None


def made(piece: dict[str, Any]) -> str:
    """What a piece did for the action."""
    return times(piece["both"]) if comparable(piece) else "not comparable"


def times(nats: float | None) -> str:
    """Odds as people say them: `3.2 times likelier`."""
    if nats is None:
        return ""
    if abs(nats) < SAME:
        return "no difference"
    factor = math.exp(min(abs(nats), 50.0))
    shown = "over 1000" if factor > 1000 else f"{factor:.0f}" if factor >= 10 else f"{factor:.1f}"
    return f"{shown} times {'likelier' if nats > 0 else 'less likely'}"


def _taught(found: dict[str, Any]) -> None:
    rows = [
        ["●" if cause.get("named") else "", cause["text"], f"{cause['part']:.2f}", cause["source"], show.when(cause["at"]), cause["feedback_id"]]
        for cause in found.get("remembered", [])
    ]  # fmt: skip
    if rows:
        title = "what speaks for it in memory (●: its causes)"
        show.table(["", "taught before", "part", "by", "at", "feedback"], rows, title=title)


def adapters_changes(
    id: Annotated[str, typer.Argument(help="A version; empty = the one that serves.")] = "",
    since: Annotated[
        str, typer.Option(help="The version to compare with, or `base`; default: the one before it.")
    ] = "",
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Show what changed from one version to another: lessons, weights by layer, decisions that flipped."""
    settings = link.settings(config)
    id = id or link.ask(settings, "status")["adapter"]
    with show.err.status("asking both versions"):
        found = link.ask(settings, "changes", id=id, since=since)
    if json:
        show.as_json(found)
        return
    if not found["modules"]:
        show.out.print("the base model serves: nothing has changed")
        return
    _changed(found)
    _by_layer(found["modules"])


def _changed(found: dict[str, Any]) -> None:
    lessons, flips = found["lessons"], found["flips"]
    show.line("version", f"{found['id']}, compared with {found['since']}")
    show.line("lessons", f"{lessons['new']} new, {lessons['gone']} no longer among them")
    show.line("weights", "; ".join(weights(found)))
    if flips is None:
        show.line("decisions", "not compared: the daemon is not running")
        return
    show.line(
        "decisions", f"{len(flips)} of {found['asked']} earlier situations would be decided otherwise (weights alone)"
    )
    if flips:
        show.table(["situation", "before", "now"], [[f["text"], f["before"], f["now"]] for f in flips[:FLIPS]])
    if len(flips) > FLIPS:
        show.out.print(f"and {len(flips) - FLIPS} more; --json lists all")


def weights(found: dict[str, Any]) -> list[str]:
    """What the numbers of the whole version say."""
    said = []
    if found["share"] is not None:
        said.append(f"moved by {100 * found['share']:.2f} % of the size of the base weights")
    if found["similarity"] is not None:
        said.append(f"{100 * found['similarity']:.0f} % alike (100: the same direction, 0: nothing in common)")
    if found["rank"] is not None:
        said.append(f"each module in about {found['rank']:.1f} directions")
    return said or ["no figures for this kind of adapter"]


def _by_layer(modules: list[dict[str, Any]]) -> None:
    """Layers down, modules across: how far each moved."""
    columns = list(dict.fromkeys(m["module"] for m in modules))
    layers = list(dict.fromkeys(m["layer"] for m in modules))
    cells = {(m["layer"], m["module"]): _share(m) for m in modules}
    rows = [["other" if layer is None else layer, *(cells.get((layer, c), "") for c in columns)] for layer in layers]
    show.table(["layer", *(c.rsplit(".", 1)[-1] for c in columns)], rows, title="moved, in % of the base weights' size")


def _share(module: dict[str, Any]) -> str:
    return f"{100 * module['share']:.2f}" if module["share"] is not None else f"({module['moved']:.2g})"


def _proven(proof: dict[str, Any]) -> None:
    if proof["state"] != "done":
        show.line("proof", proof["why"] or f"{proof['step']}, {100 * proof['progress']:.0f} %")
        return
    count = len(proof["removed"])
    causes = "its cause" if count == 1 else f"its {count} causes"
    flipped = "another decision" if proof["flips"] else "the same decision"
    show.line("proof", f"{flipped}, had {causes} never been taught")
    rows = [
        [who, judge["action"], show.percent(judge["p"]), judge["without"] or "nothing to say", show.percent(judge["p_without"])]
        for who, judge in (("weights alone", proof["weights"]), ("memory alone", proof["memory"]), ("both", proof["both"]))
        if judge is not None
    ]  # fmt: skip
    show.table(["", "with them", "chance", "without them", "chance of the first"], rows)
    if proof.get("note"):
        show.line("note", proof["note"])
