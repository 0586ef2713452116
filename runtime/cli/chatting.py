"""`corrigible chat`: say something, see what is decided, and correct it in the next line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runtime.cli import link, show
from runtime.cli.options import AsJson, ConfigFile
from runtime.errors import BadInput, CorrigibleError

if TYPE_CHECKING:
    from runtime.config import Config

HELP = "/correct TEXT: that was wrong, say this   /1 /2 ...: the answer to a question   /ok: that was right   /why: explain   /quit"


def chat(
    text: Annotated[str, typer.Argument(help="One sentence; without it you talk until /quit.")] = "",
    scope: Annotated[str, typer.Option(help="Where it is said: `chat` or a scope of the house.")] = "chat",
    who: Annotated[str, typer.Option(help="Who says it.")] = "",
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Talk to the running daemon, and correct its answers."""
    settings = link.settings(config)
    if text:
        answer = link.ask(settings, "say", text=text, scope=scope, who=who)
        show.as_json(answer) if json else _print(answer)
        return
    show.out.print(f"[dim]{show.cell(HELP)}[/]")
    last: dict[str, Any] = {}
    for line in iter(_line, ""):
        said = line.strip()
        if said in ("/quit", "/q"):
            return
        if said:
            last = _turn(settings, said, scope, who, last)


def _line() -> str:
    """The next line with its end, or an empty string when there is no more."""
    if not sys.stdin.isatty():
        return sys.stdin.readline()
    try:
        return input("› ") + "\n"
    except EOFError:
        return ""


def _turn(settings: Config, said: str, scope: str, who: str, last: dict[str, Any]) -> dict[str, Any]:
    """One line of the talk; a mistake is said and the talk goes on."""
    try:
        if not said.startswith("/"):
            answer: dict[str, Any] = link.ask(settings, "say", text=said, scope=scope, who=who)
            _print(answer)
            return answer
        _command(settings, said, who, last)
    except CorrigibleError as error:
        show.out.print(f"[red]{show.cell(error)}[/]")
    return last


def _command(settings: Config, said: str, who: str, last: dict[str, Any]) -> None:
    said = _picked(said, last)
    verb, _, rest = said.partition(" ")
    if verb not in ("/correct", "/ok", "/why"):
        raise BadInput(HELP)
    if not last:
        raise BadInput("say something first")
    if verb == "/why":
        found = link.ask(settings, "explain", decision_id=last["id"])
        show.table(["candidate", "p"], [[c["action"], show.percent(c["p_model"])] for c in found["candidates"][:10]])
        return
    if verb == "/correct" and not rest.strip():
        raise BadInput("write what would have been right: /correct TEXT")
    right = _action(last, rest.strip()) if verb == "/correct" else ""
    kind = "correction" if right else "acceptance"
    link.ask(settings, "feedback", decision_id=last["id"], kind=kind, action=right, source=who or "chat")
    show.out.print("[green]noted[/]")


def _picked(said: str, last: dict[str, Any]) -> str:
    """`/2` after a question is the correction with its second choice."""
    number, question = said.removeprefix("/"), last.get("question") or []
    if not number.isdecimal():
        return said
    if not 1 <= int(number) <= len(question):
        raise BadInput(
            f"there is no choice {number}; " + (f"the last question has {len(question)}" if question else HELP)
        )
    return f"/correct {question[int(number) - 1]}"


def _action(last: dict[str, Any], text: str) -> str:
    """What a person writes is the answer itself if the last one was an answer, else an action's text."""
    if last.get("reply") and text not in last["choices"] and not text.startswith("reply "):
        return f"reply {text}"
    return text


def _print(answer: dict[str, Any]) -> None:
    if answer.get("question"):
        show.out.print("I am not sure. Which one?")
        for number, choice in enumerate(answer["question"], start=1):
            show.out.print(f"  [bold]/{number}[/]  {show.cell(choice)}")
        return
    by = "the table" if answer["by"] == "table" else f"{answer['by']}, {answer['adapter']}"
    shown = answer.get("reply") or answer["action"]
    show.out.print(f"{show.cell(shown)}  [dim]({show.cell(by)} {show.cell(show.percent(answer['p_model']))})[/]")
