"""A house of isolated plugins in a fresh directory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest

from tests.isolation.houses import House, opened

Opened = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def house(tmp_path: Path) -> Opened:
    return partial(opened, tmp_path / "data")
