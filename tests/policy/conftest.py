"""One tiny model for all policy tests."""

from __future__ import annotations

import pytest

from runtime.learning.jobs import Base
from runtime.policy.backbone import Backbone
from runtime.policy.scoring import Scorer
from tests.policy import tiny


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny.llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def backbone(model: Base) -> Backbone:
    return Backbone(model)


@pytest.fixture
def scorer(backbone: Backbone) -> Scorer:
    return Scorer(backbone, "Choose what to do.", reply_tokens=12, free_below=0.0, catalogue_tokens=0)
