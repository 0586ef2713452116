"""Every planted bug still fits what it replaces: one that only raises TypeError would be found for the wrong reason, or not at all."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos import mutants


@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_it_can_be_called_as_what_it_replaces(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fits(owner: Any, attribute: str, new: Callable[[Any], Any]) -> None:
        old = getattr(owner, attribute)
        if not callable(old):
            return  # a number
        parameters = inspect.signature(old).parameters.values()
        named = {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}
        placed = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
        inspect.signature(new(old)).bind(*placed, **dict.fromkeys(named))

    monkeypatch.setattr(mutants, "_put", fits)
    mutants.plant(name)
