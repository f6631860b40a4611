from __future__ import annotations

import pytest
import torch

from prism_fast.errors import InputError
from prism_fast.models.device import require_device


def test_cpu_is_always_there() -> None:
    assert require_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["abacus", "cuda:97", "", "CPU", "mps", "meta", "cuda:-1", "٣"])
def test_a_device_that_cannot_be_used_is_one_clear_line(name: str) -> None:
    with pytest.raises(InputError, match=f"device '{name}'.*doctor") as caught:
        require_device(name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 220
