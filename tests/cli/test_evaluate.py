"""``prism-fast evaluate`` on a folder: which class a folder is, and what is said of a subset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Command
from tests.tiny import make_teacher

INPUT = 2


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.yaml"
    path.write_text("name: animals\nclasses:\n  - name: zebra\n  - name: red panda\n  - name: ant\n")
    return path


def pictures(root: Path, *folders: str) -> Path:
    for place, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (40, 50), (60 * place, 20 * i, 90)).save(root / folder / f"{i}.jpg")
    return root


def test_folders_of_names_need_their_label_space(prism: Command, tmp_path: Path, labels: Path) -> None:
    teacher, folder = make_teacher(tmp_path / "teacher"), pictures(tmp_path / "p", "ant", "red_panda", "Zebra")
    refused = prism("evaluate", teacher, "--pictures", folder)
    assert refused.code == INPUT
    assert "3 of 3 class folders" in refused.error()
    assert "(Zebra, ant, red_panda)" in refused.error()
    assert "--labels NAME_OR_FILE" in refused.error()

    named = prism("evaluate", teacher, "--pictures", folder, "--labels", labels, "--json")
    assert named.code == 0, named.err
    by_name = json.loads(named.out)
    for name, number in (("ant", "2"), ("red_panda", "01_red-panda"), ("Zebra", "0")):
        (folder / name).rename(folder / number)
    by_number = json.loads(prism("evaluate", teacher, "--pictures", folder, "--batch-size", 2, "--json").out)
    assert [{**s, "matched": ""} for s in by_name] == [{**s, "matched": ""} for s in by_number]
    assert (by_name[0]["matched"], by_number[0]["matched"]) == ("by the names of animals", "by number")


def test_a_subset_is_said(prism: Command, tmp_path: Path, labels: Path) -> None:
    teacher, folder = make_teacher(tmp_path / "teacher"), pictures(tmp_path / "p", "ant", "zebra")
    told = prism("evaluate", teacher, "--pictures", folder, "--labels", labels, "--device", "cpu")
    assert told.code == 0, told.err
    assert told.out.endswith("6 pictures, among 2 of 3 classes, matched by the names of animals\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--labels", "emoji"), "label space 'emoji' has 16 classes, the classifier 3"),
        (("--labels", "nothing"), "label space 'nothing' is neither"),
        (("--device", "tpu"), "device 'tpu' cannot be used here"),
    ],
)
def test_a_wrong_argument_is_one_line(prism: Command, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    folder = pictures(tmp_path / "p", "0", "1")
    answer = prism("evaluate", make_teacher(tmp_path / "teacher"), "--pictures", folder, *options)
    assert answer.code == INPUT
    assert said in answer.error()


def test_an_empty_picture_is_named(prism: Command, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "p", "0", "1")
    (folder / "1" / "2.jpg").write_bytes(b"")
    answer = prism("evaluate", make_teacher(tmp_path / "teacher"), "--pictures", folder)
    assert answer.code == INPUT
    assert f"the picture {folder / '1' / '2.jpg'} cannot be read (it is empty)" in answer.error()


def test_the_bundled_sets_are_not_for_other_classes(prism: Command, tmp_path: Path) -> None:
    answer = prism("evaluate", make_teacher(tmp_path / "teacher"))
    assert answer.code == INPUT
    assert "tells 3 classes apart, the bundled test sets have 16" in answer.error()


def test_a_file_of_classes_and_what_is_left_out(prism: Command, tmp_path: Path, labels: Path) -> None:
    folder, truth = tmp_path / "flat", tmp_path / "truth.csv"
    folder.mkdir()
    for i in range(4):
        Image.new("RGB", (40, 50), (60 * i, 20 * i, 90)).save(folder / f"{i}.jpg")
    truth.write_text("name,class\n0.jpg,zebra\n1.jpg,ant\n2,ant\n")
    options = ("--pictures", folder, "--labels", labels, "--ground-truth", truth)
    answer = prism("evaluate", make_teacher(tmp_path / "teacher"), *options, "--json")
    assert answer.code == 0, answer.err
    (found,) = json.loads(answer.out)
    assert (found["n"], found["left_out"], found["classes_scored"], found["classes"]) == (3, 1, 2, 3)
    told = prism("evaluate", tmp_path / "teacher", *options)
    assert "3 pictures, 1 left out, among 2 of 3 classes, matched by the names of animals" in told.out


@pytest.mark.parametrize("option", ["--real", "--ground-truth"])
def test_a_file_without_pictures_is_refused(prism: Command, tmp_path: Path, option: str) -> None:
    answer = prism("evaluate", make_teacher(tmp_path / "teacher"), option, tmp_path / "f")
    assert answer.code == INPUT
    assert "are for pictures of your own; give --pictures DIR" in answer.error()
