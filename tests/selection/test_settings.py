from __future__ import annotations

from typing import Any

import pytest

from prism_fast.errors import InputError
from prism_fast.selection.settings import Settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"per_class": 0}, "--per-class is 0"),
        ({"per_class": 1, "keep": 0.5}, "give one of them"),
        ({"keep": 0.0}, "--keep is 0.0"),
        ({"keep": 1.5}, "--keep is 1.5"),
        ({"keep": float("nan")}, "--keep is nan"),
        ({"max_energy": float("inf")}, "--max-energy is inf"),
        ({"duplicates": 0.0}, "--duplicates is 0.0"),
        ({"duplicates": 1.01}, "--duplicates is 1.01"),
        ({"quotas": ((1, 2), (1, 3))}, "names a class twice"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings(**values)


def test_a_share_is_rounded_up_and_exact() -> None:
    assert [Settings(keep=0.1).quota(0, stored) for stored in (1, 10, 30, 31)] == [1, 1, 3, 4]
    assert Settings(keep=1e-05).quota(0, 7) == 1
    assert Settings(keep=1.0).quota(0, 7) == 7


def test_a_class_of_its_own_comes_before_the_rest() -> None:
    settings = Settings(per_class=5, quotas=((2, 0),))
    assert [settings.quota(label, 9) for label in (1, 2)] == [5, 0]
    assert Settings().quota(0, 9) is None
