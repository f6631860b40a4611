"""One tiny model for the tests of the loop."""

from __future__ import annotations

import pytest

from prism_fast.config import load_config
from prism_fast.synthesis.synthesizer import Synthesizer
from tests.tiny import write_config

STEPS = 10


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory: pytest.TempPathFactory) -> Synthesizer:
    folder = tmp_path_factory.mktemp("tiny")
    sampling = {"steps": STEPS, "batch_size": 4, "height": 16, "width": 16, "guidance_scale": 2.0}
    return Synthesizer.load(load_config(str(write_config(folder, sampling=sampling))))
