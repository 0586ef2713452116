"""The options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="The configuration; default: config.toml here, if there is one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
DecisionId = Annotated[str, typer.Argument(help="A decision's id, or `last` for the newest.")]
