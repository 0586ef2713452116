"""A file that counts starts which did not live: after a few of them the next one starts with as little as possible."""

from __future__ import annotations

import json
import os
from pathlib import Path

from runtime.config import SupervisionConfig


class Boots:
    """`begin` at every start, `lived` once it has lasted, `ended` when it was stopped on purpose. The file holds one number and no
    time: it is right whatever the clock does."""

    def __init__(self, path: Path, settings: SupervisionConfig) -> None:
        self._path = path
        self._settings = settings

    @property
    def failed(self) -> int:
        """Starts in a row that neither lived nor were stopped; a file that cannot be read counts none."""
        try:
            found = json.loads(self._path.read_text(encoding="ascii"))["failed"]
        except (OSError, ValueError, TypeError, KeyError):
            return 0
        return found if isinstance(found, int) and found > 0 else 0

    def begin(self) -> str:
        """Count this start. Returns the reason to start in safe mode, or ""."""
        before = self.failed
        self._write(before + 1)
        if before < self._settings.crashes:
            return ""
        return f"the last {before} starts did not live {self._settings.lived:g} s"

    def lived(self) -> None:
        self._write(0)

    def ended(self) -> None:
        self._write(0)

    def retry(self) -> None:
        """Leave safe mode on trial: one more start that does not live leads back to it."""
        self._write(max(0, self._settings.crashes - 1))

    def _write(self, failed: int) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps({"failed": failed}) + "\n", encoding="ascii")
        os.replace(fresh, self._path)
