from __future__ import annotations

import json
from pathlib import Path

import timm

from tests.cli.conftest import Command
from tests.tiny import make_teacher


def test_export_student(prism: Command, tmp_path: Path) -> None:
    student = make_teacher(tmp_path / "student")
    answer = prism("export-student", tmp_path, "--out", tmp_path / "out", "--format", "safetensors", "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert [(one["format"], one["error"]) for one in found["files"]] == [("safetensors", 0.0)]
    assert timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).num_classes == 3
    again = prism("export-student", student, "--out", tmp_path / "out", "--format", "safetensors")
    assert again.code == 2
    assert "is not an empty folder" in again.error()


def test_its_errors_are_one_line(prism: Command, tmp_path: Path) -> None:
    answer = prism("export-student", tmp_path / "none", "--out", tmp_path / "out")
    assert answer.code == 2
    assert "holds no student" in answer.error()
    assert prism("export-student", tmp_path, "--out", tmp_path / "out", "--format", "pickle").code == 2
