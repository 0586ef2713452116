"""Commands that keep what was learnt: backup and restore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runtime.cli import link, show
from runtime.cli.options import AsJson, ConfigFile


def backup(
    to: Annotated[
        Path | None, typer.Argument(help="A directory that is not there yet; without it a new one in data/backups.")
    ] = None,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Copy the journal and all adapters, also while the daemon runs."""
    place = str(to.absolute()) if to else ""
    found = link.ask(link.settings(config), "backup", to=place)
    if json:
        show.as_json(found)
    else:
        show.out.print(f"a backup is in {show.cell(found['backup'])}")


def restore(
    backup: Annotated[Path, typer.Argument(help="The directory of a backup.")],
    config: ConfigFile = None,
) -> None:
    """Put a backup in the place of journal and adapters; what was there is kept beside. The daemon has to be stopped."""
    from runtime.journal import backups, lock
    from runtime.journal.anchor import Anchors

    settings = link.settings(config)
    data = settings.agent.data
    with lock.hold(data):
        aside = backups.restore(data, backup, Anchors.of(data, settings.journal.anchors))
    kept = f"; what was there is in {show.cell(aside)}" if aside else ""
    show.out.print(f"{show.cell(backup)} is restored{kept}")
