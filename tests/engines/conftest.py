"""The graph that backends build from, traced once."""

from __future__ import annotations

import pytest
from prism_engines.graph import Graph

from tests.engines import tiny


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return tiny.graph(tmp_path_factory.mktemp("graph"))
