"""One tiny model for all learning tests."""

from __future__ import annotations

import pytest

from runtime.learning.jobs import Base
from tests.policy import tiny


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny.llama(tmp_path_factory.mktemp("llama"))
