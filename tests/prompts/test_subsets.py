"""Parts of ImageNet-1k as label spaces."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml
from timm.data import ImageNetInfo

from prism_fast.config import load_config
from prism_fast.errors import ConfigError
from prism_fast.labels.load import load_label_space

IMAGENETTE = {
    "tench": "n01440764",
    "English springer": "n02102040",
    "cassette player": "n02979186",
    "chain saw": "n03000684",
    "church": "n03028079",
    "French horn": "n03394916",
    "garbage truck": "n03417042",
    "gas pump": "n03425413",
    "golf ball": "n03445777",
    "parachute": "n03888257",
}


def _synsets(name: str) -> list[str]:
    whole = ImageNetInfo("imagenet-1k").label_names()
    return [whole[i] for i in load_label_space(name).indices]


def test_imagenette_is_fast_ais_ten_in_order_of_wordnet_id() -> None:
    space = load_label_space("imagenette")
    assert _synsets("imagenette") == sorted(IMAGENETTE.values()) == list(IMAGENETTE.values())
    assert [cls.name.casefold() for cls in space.classes][:2] == ["tench", "english springer"]
    assert space.index("parachute") == 9


def test_imagenet100_is_the_list_of_cmc() -> None:
    """The hash is of imagenet100.txt of github.com/HobbitLong/CMC, its ids sorted, one a line."""
    found = _synsets("imagenet100")
    assert len(set(found)) == 100
    assert found == sorted(found)
    digest = hashlib.sha256("\n".join(found).encode()).hexdigest()
    assert digest == "d61d354b64beb3ce2c2c9cf04a874298362dc9fcd589e15ee34c5e4592145746"
    assert {"n02869837", "n01749939", "n02090622"} <= set(found)  # the first two of that file, and the last


@pytest.mark.parametrize("name", ["imagenet100", "imagenette"])
def test_names_and_senses_are_the_wholes(name: str) -> None:
    space, whole = load_label_space(name), load_label_space("imagenet1k")
    assert space.subset_of == "imagenet1k"
    assert [whole.classes[i] for i in space.indices] == list(space.classes)


def test_your_own_part_keeps_its_order_and_its_names(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    document = {"name": "mine", "synsets": ["n03888257", "n01440764"]}
    file.write_text(yaml.safe_dump(document))
    space = load_label_space(str(file))
    assert (space.indices, [cls.name for cls in space.classes]) == ((701, 0), ["parachute", "tench"])
    file.write_text(yaml.safe_dump({**document, "classes": [{"name": "Schirm"}, {"name": "Schleie"}]}))
    space = load_label_space(str(file))
    assert (space.indices, [cls.name for cls in space.classes]) == ((701, 0), ["Schirm", "Schleie"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nsynsets: [n01440764, n99999999]", "'n99999999' is no class of imagenet1k"),
        ("name: a\nsynsets: n01440765", "'n01440765' is no class of imagenet1k"),
        ("name: a\nsynsets: [[1]]", "is no class of imagenet1k"),
        ("name: a\nsynsets: []", "classes"),
        ("name: a\nsynsets: [n01440764, n01440764]", "2 classes are called 'tench'"),
        ("name: a\nsynsets: [n01440764]\nclasses: [{name: a}, {name: b}]", "1 places in a larger label space for 2"),
        ("name: a\nclasses: [{name: a}]\nsubset_of: imagenet1k", "0 places in a larger label space for 1"),
        ("name: a\nclasses: [{name: a}]\nindices: [3]", "1 places in a larger label space for 0"),
        ("name: a\nclasses: [{name: a}, {name: b}]\nsubset_of: imagenet1k\nindices: [3, 3]", "stands there twice"),
        (
            "name: a\nclasses: [{name: a}]\nsubset_of: imagenet1k\nindices: [1000]",
            "indices.0: Input should be less than 1000",
        ),
    ],
)
def test_a_part_that_cannot_be_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml") as caught:
        load_label_space(str(file))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_workers_of_two_parts_are_of_two_runs() -> None:
    hashes = {load_config("imagenette-sd15", (f"labels={name}",)).run_hash() for name in ("imagenette", "imagenet100")}
    assert len(hashes) == 2
