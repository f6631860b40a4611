"""Tiny models for the steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from prism_fast.gpu_check.finding import Options
from tests.tiny import write_config


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    student = {"student": "test_resnet", "image_size": 32}
    return str(write_config(tmp_path_factory.mktemp("small"), distill=student))


@pytest.fixture
def options(tiny: str, tmp_path: Path) -> Options:
    return Options("cpu", str(tmp_path), small=tiny)
