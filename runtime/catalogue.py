"""What may be chosen: tools with JSON-schema arguments, the finite list they span, and an action's text form.

The text is what the model writes and reads, so there is one function each way:

    nothing                      a tool without arguments
    lamp dim                     a tool with exactly one declared argument: its value in words
    HassTurnOn {"area":"Hall"}   every other tool: compact JSON, keys in the declared order
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec

from runtime.errors import BadAction
from runtime.messages import NOTHING, Action, Message

FINITE_LIMIT = 4096  # actions; a catalogue that spans more is decoded, not enumerated
TEXT_LIMIT = 2000  # characters of one free-text argument

Schema = dict[str, Any]


class Tool(Message, frozen=True, kw_only=True):
    """One thing that can be done. `arguments` maps a name to a JSON schema of these forms:

    `{"enum": [...]}`, `{"type": "string"}`, `{"type": "boolean"}`,
    `{"type": "integer" | "number", "minimum": a, "maximum": b}` and `{"type": "array", "items": <one of these>}`;
    `{"anyOf": [...]}` joins some of them. Arguments not in `required` may be left out.
    """

    name: str
    arguments: dict[str, Schema] = {}
    required: tuple[str, ...] = ()
    actuator: str = ""  # who carries it out; "" = nobody needs to
    description: str = ""
    once: bool = False  # told at most once: doing it twice would not be the same as once (a bell, a feeder)

    @property
    def single(self) -> str | None:
        """The one argument whose value alone follows the tool's name, if the tool is of that form."""
        if len(self.arguments) != 1 or not self.required:
            return None
        return next(iter(self.arguments))

    def choices(self) -> list[dict[str, Any]] | None:
        """Every combination of arguments, or None if there are not finitely many."""
        axes: list[list[tuple[str, Any] | None]] = []
        for name, schema in self.arguments.items():
            values = _values(schema)
            if values is None:
                return None
            axis: list[tuple[str, Any] | None] = [(name, value) for value in values]
            if name not in self.required:
                axis.append(None)
            axes.append(axis)
        if math.prod(len(axis) for axis in axes) > FINITE_LIMIT:
            return None
        return [dict(pair for pair in row if pair is not None) for row in itertools.product(*axes)]


class Catalogue(Message, frozen=True, kw_only=True):
    """The tools of one scope, and `known`: actions with free arguments that are candidates too (earlier replies)."""

    tools: tuple[Tool, ...]
    known: tuple[Action, ...] = ()

    @property
    def id(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]

    def tool(self, name: str) -> Tool:
        for tool in self.tools:
            if tool.name == name:
                return tool
        raise BadAction(f"there is no tool {name!r} here; the tools are {', '.join(t.name for t in self.tools)}")

    @property
    def closed(self) -> bool:
        """True if every possible action is in `finite()`: nothing has to be decoded."""
        return all(tool.choices() is not None for tool in self.tools)

    def finite(self) -> tuple[Action, ...]:
        """Every action of the finite tools and every known action, each once, in a stable order."""
        seen: dict[str, Action] = {}
        for action in itertools.chain(self._spanned(), self.known):
            seen.setdefault(self.render(action), action)
        return tuple(seen.values())

    def _spanned(self) -> Iterator[Action]:
        for tool in self.tools:
            for arguments in tool.choices() or ():
                yield Action(tool=tool.name, arguments=arguments)

    def render(self, action: Action) -> str:
        """The action's text; the same action always has the same text. Raises BadAction where it has none."""
        tool = self.tool(action.tool)
        if not action.arguments:
            return tool.name
        if tool.single is not None:
            return f"{tool.name} {_spell(_needed(tool, action, tool.single))}"
        ordered = {name: action.arguments[name] for name in tool.arguments if name in action.arguments}
        return f"{tool.name} {msgspec.json.encode(ordered).decode()}"

    def parse(self, text: str) -> Action:
        """The action a text stands for. Raises BadAction with the reason and the nearest help.

        Where nothing can be done but reply, any text is the reply: people correct an answer by saying the right one."""
        name, _, rest = text.strip().partition(" ")
        if self.tools == (REPLY,) and name != REPLY.name:
            return self.check(Action(tool=REPLY.name, arguments={"text": text.strip()}))
        tool = self.tool(name)
        if not rest:
            return self.check(Action(tool=name))
        if tool.single is not None:
            return self.check(Action(tool=name, arguments={tool.single: _read(rest, tool.arguments[tool.single])}))
        try:
            arguments = msgspec.json.decode(rest, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise BadAction(f"the arguments of {name!r} are not a JSON object: {error}") from None
        return self.check(Action(tool=name, arguments=arguments))

    def check(self, action: Action) -> Action:
        """The action itself if it is valid here; raises BadAction saying what is wrong otherwise."""
        tool = self.tool(action.tool)
        for name in tool.required:
            _needed(tool, action, name)
        for name, value in action.arguments.items():
            if name not in tool.arguments:
                known = ", ".join(tool.arguments) or "none"
                raise BadAction(f"{tool.name!r} has no argument {name!r}; its arguments are {known}")
            if not _fits(value, tool.arguments[name]):
                raise BadAction(f"{name}={value!r} is outside what {tool.name!r} allows: {tool.arguments[name]}")
        return action

    def allows(self, action: Action) -> bool:
        """False for what an older configuration offered: tools go while what was said of them stays in the journal."""
        with suppress(BadAction):
            self.check(action)
            return True
        return False


def _needed(tool: Tool, action: Action, name: str) -> Any:
    if name not in action.arguments:
        raise BadAction(f"{tool.name!r} needs the argument {name!r}")
    return action.arguments[name]


def _values(schema: Schema) -> list[Any] | None:
    if "enum" in schema:
        return list(schema["enum"])
    if schema.get("type") == "boolean":
        return [False, True]
    return None


def _fits(value: Any, schema: Schema) -> bool:
    if "anyOf" in schema:
        return any(_fits(value, option) for option in schema["anyOf"])
    if "enum" in schema:
        return any(value == option and isinstance(value, bool) == isinstance(option, bool) for option in schema["enum"])
    kind = schema.get("type")
    if kind == "string":
        return isinstance(value, str) and len(value) <= schema.get("maxLength", TEXT_LIMIT)
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "array":
        return isinstance(value, list | tuple) and all(_fits(item, schema["items"]) for item in value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    if kind == "integer" and not float(value).is_integer():
        return False
    return bool(schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf))


def _spell(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _read(text: str, schema: Schema) -> Any:
    """The value a single argument's text stands for, judged by its schema."""
    for value in _values(schema) or ():
        if _spell(value) == text:
            return value
    if schema.get("type") == "string":
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return text  # `check` says what is wrong with it


DO_NOTHING = Tool(name="nothing", description="leave everything as it is")
REPLY = Tool(
    name="reply",
    arguments={"text": {"type": "string"}},
    required=("text",),
    description="answer the person in words",
)

assert DO_NOTHING.name == NOTHING.tool
