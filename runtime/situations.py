"""Which actions a scope may choose from: the actuators' tools, `nothing`, and the replies people taught there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from runtime.catalogue import DO_NOTHING, Catalogue, Tool
from runtime.errors import BadConfig, BadInput
from runtime.messages import Action, Example

KNOWN_LIMIT = 500  # replies remembered as candidates, newest kept


class Catalogues:
    """scope -> Catalogue. Tools are fixed at start; known replies grow with feedback."""

    def __init__(self, offers: Sequence[Mapping[str, tuple[Tool, ...]]]) -> None:
        self._tools: dict[str, tuple[Tool, ...]] = {}
        self._known: dict[str, dict[str, Action]] = {}
        self._cache: dict[str, Catalogue] = {}
        owners: dict[str, str] = {}
        for offer in offers:
            for scope, tools in offer.items():
                self._tools[scope] = self._tools.get(scope, ()) + tools
                for tool in tools:
                    if tool.actuator and owners.setdefault(tool.actuator, scope) != scope:
                        raise BadConfig(
                            f"actuator {tool.actuator!r} is in scopes {owners[tool.actuator]!r} and {scope!r}; one scope owns an actuator"
                        )
        for scope, tools in self._tools.items():
            if any(tool.actuator for tool in tools):  # where there is a device, leaving it alone is a choice
                self._tools[scope] = (DO_NOTHING, *tools)

    @property
    def scopes(self) -> tuple[str, ...]:
        return tuple(self._tools)

    @property
    def actuators(self) -> frozenset[str]:
        return frozenset(tool.actuator for tools in self._tools.values() for tool in tools if tool.actuator)

    def of(self, scope: str) -> Catalogue:
        """The catalogue of a scope; a scope nobody offered tools for can only do `nothing`."""
        if scope not in self._cache:
            known = tuple(self._known.get(scope, {}).values())
            self._cache[scope] = Catalogue(tools=self._tools.get(scope, (DO_NOTHING,)), known=known)
        return self._cache[scope]

    def all(self) -> dict[str, Catalogue]:
        return {scope: self.of(scope) for scope in self._tools}

    def told(self, scope: str, action: Action) -> str:
        """An action in words, also one that there is no tool for any more."""
        with suppress(BadInput):
            return self.of(scope).render(action)
        return f"{action.tool} {action.arguments}" if action.arguments else action.tool

    def possible(self, words: Iterable[Example]) -> list[Example]:
        """Without words on tools that are gone: they wait in the journal, and count for nothing meanwhile."""
        return [word for word in words if self.of(word.scope).allows(word.action)]

    def know_only(self, taught: Iterable[tuple[str, Action]]) -> None:
        """Remember these actions (by scope), oldest first, and no others."""
        self._known.clear()
        self._cache.clear()
        for scope, action in taught:
            self.know(scope, action)

    def know(self, scope: str, action: Action) -> None:
        """Remember an action with free arguments, so that it is a candidate from now on; not one that cannot be done here."""
        catalogue = self.of(scope)
        if (
            scope not in self._tools
            or not catalogue.allows(action)
            or catalogue.tool(action.tool).choices() is not None
        ):
            return
        known = self._known.setdefault(scope, {})
        text = catalogue.render(action)
        if known.pop(text, None) is None:
            self._cache.pop(scope, None)
        known[text] = action
        while len(known) > KNOWN_LIMIT:
            known.pop(next(iter(known)))
