"""``prism-fast kernels``: what there is, and one line when it cannot be compiled."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Command


def test_lists_every_operator(prism: Command) -> None:
    rows = json.loads(prism("kernels", "--json").out)
    names = ["counter_noise", "energy", "group_norm_silu", "guided_combine", "guided_step", "view"]
    assert [row["op"] for row in rows] == names
    answer = prism("kernels")
    assert answer.code == 0
    assert all(row["op"] in answer.out for row in rows)


def test_the_interpreter_excludes_compiling(prism: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    answer = prism("kernels", "--compile")
    assert answer.code == 2
    assert "unset it" in answer.err
