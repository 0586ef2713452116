"""One copy of the base weights for all processes: parameters are mapped from the safetensors file, not read into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open


def share(model: Any, directory: Path) -> None:
    """Let every parameter that is stored as it is used stand in the file's own pages, which the processes share."""
    parameters = dict(model.named_parameters())
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                parameter = parameters.get(name)
                if parameter is None:
                    continue
                stored = file.get_tensor(name)
                if stored.shape == parameter.shape and stored.dtype == parameter.dtype:
                    parameter.data = stored
