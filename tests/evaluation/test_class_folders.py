"""Folders of pictures are classes by name, never by their place in the alphabet."""

from __future__ import annotations

from pathlib import Path

import pytest

from prism_fast.errors import DataError, InputError
from prism_fast.evaluation.class_folders import folder_names, match_folders
from prism_fast.labels.load import load_label_space

EMOJI = [cls.name for cls in load_label_space("emoji").classes]


@pytest.fixture
def animals(tmp_path: Path) -> str:
    path = tmp_path / "animals.yaml"
    names = ["red panda", "Tiger_cat", "été", "crane (n02012849)", "red-panda 2"]
    path.write_text("name: animals\nclasses:\n" + "".join(f"  - name: {name!r}\n" for name in names), encoding="utf-8")
    return str(path)


def test_bundled_names_in_any_order_keep_their_labels() -> None:
    folders = sorted(EMOJI)
    assert folders != EMOJI
    assert match_folders(folders, 16) == ([EMOJI.index(name) for name in folders], "by the names of emoji")
    assert match_folders(folders, 16, "emoji")[0] == [EMOJI.index(name) for name in folders]


def test_a_name_too_long_for_a_folder_is_refused() -> None:
    assert len(folder_names(["a" * 253])[0]) == 255
    with pytest.raises(
        InputError, match=r"class 1 \(a+\.\.\.\) has a name of 5000 letters, too long for a folder"
    ) as e:
        folder_names(["b", "a" * 5000])
    assert len(str(e.value)) < 400


def test_our_own_export_is_matched() -> None:
    assert match_folders(folder_names(EMOJI), 16) == (list(range(16)), "by the names of emoji")
    assert match_folders(folder_names(EMOJI)[3:5], 16)[0] == [3, 4]


@pytest.mark.parametrize("style", [str.upper, lambda name: name.replace(" ", "_"), lambda name: name.replace(" ", "-")])
def test_case_blanks_dashes_and_underscores_do_not_matter(style, animals: str) -> None:  # type: ignore[no-untyped-def]
    assert match_folders([style("red panda"), style("tiger cat"), style("été")], 5, animals)[0] == [0, 1, 2]


def test_our_export_of_names_that_are_not_ascii(animals: str) -> None:
    names = [cls.name for cls in load_label_space(animals).classes]
    assert match_folders(folder_names(names), 5, animals)[0] == [0, 1, 2, 3, 4]


def test_wordnet_ids_are_imagenets() -> None:
    found, how = match_folders(["n01440764", "n01443537", "n02012849", "n03126707"], 1000)
    assert (found, how) == ([0, 1, 134, 517], "by the names of imagenet1k")


def test_a_wordnet_id_finds_the_same_sense_in_another_label_space(animals: str) -> None:
    assert match_folders(["n02012849", "n02123159"], 5, animals)[0] == [3, 1]
    with pytest.raises(DataError, match="n03126707"):  # the machine
        match_folders(["n03126707"], 5, animals)


@pytest.mark.parametrize(
    ("folders", "labels"),
    [(["0", "1", "10", "2"], [0, 1, 10, 2]), (["00", "01"], [0, 1]), (["000_cat", "011_dog"], [0, 11]), (["3-x"], [3])],
)
def test_numbers_are_labels(folders: list[str], labels: list[int]) -> None:
    assert match_folders(folders, 12) == (labels, "by number")


@pytest.mark.parametrize("folders", [["cat", "dog"], ["0", "dog"], ["0", "12"], ["0", "3d"], ["-1", "0"], ["٣", "0"]])
def test_folders_of_unknown_names_are_refused_and_named(folders: list[str]) -> None:
    with pytest.raises(DataError, match=r"of 2 class folders are neither .*--labels NAME_OR_FILE") as caught:
        match_folders(folders, 12)
    assert folders[1] in str(caught.value) or folders[0] in str(caught.value)


@pytest.mark.parametrize("folder", ["wolf", "5", "01_red-panda", "07_red-panda", "n09999999"])
def test_a_folder_that_the_label_space_lacks_is_named(animals: str, folder: str) -> None:
    with pytest.raises(DataError, match=rf"1 of 2 class folders match no class of label space .*\({folder}\)"):
        match_folders(["red panda", folder], 5, animals)


def test_two_folders_of_one_class_are_refused(animals: str) -> None:
    with pytest.raises(DataError, match="'Red Panda' and 'red_panda' are both class 0"):
        match_folders(["Red Panda", "red_panda"], 5, animals)
    with pytest.raises(DataError, match="both class 1"):
        match_folders(["1", "01"], 5)


def test_a_name_that_only_its_writing_tells_apart_must_be_exact(tmp_path: Path) -> None:
    path = tmp_path / "polish.yaml"
    path.write_text("name: polish\nclasses:\n  - name: polish\n  - name: Polish\n")
    assert match_folders(["Polish", "polish"], 2, str(path))[0] == [1, 0]
    with pytest.raises(DataError, match="POLISH"):
        match_folders(["POLISH"], 2, str(path))


def test_a_label_space_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="'emoji' has 16 classes, the classifier 1000"):
        match_folders(["face"], 1000, "emoji")


def test_a_classifier_that_names_its_classes_needs_no_label_space() -> None:
    own = ["tench, Tinca tinca", "crane", "crane", "goldfish"]
    assert match_folders(["goldfish", "tench"], 4, None, own) == ([3, 0], "by the names of the classifier")
    assert match_folders(["n01443537", "n01440764"], 4, None, own)[0] == [3, 0]
    assert match_folders(["1", "2"], 4, None, own)[0] == [1, 2]
    with pytest.raises(DataError, match=r"\(crane, goldfish\)"):
        match_folders(["crane", "goldfish"], 4, None, own)
