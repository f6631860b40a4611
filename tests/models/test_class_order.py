"""A classifier whose classes are named must stand in the order of the label space."""

from __future__ import annotations

import pytest
from timm.data import ImageNetInfo

from prism_fast.errors import InputError
from prism_fast.labels.load import load_label_space
from prism_fast.labels.space import ClassLabel, LabelSpace
from prism_fast.models.class_order import require_label_order
from prism_fast.models.classifier_config import ClassifierConfig

SPACE = LabelSpace(name="mine", classes=tuple(ClassLabel(name=n) for n in ("cat", "hot-dog", "red")))


def _named(*names: str) -> ClassifierConfig:
    half = (0.5,) * 3
    return ClassifierConfig(
        architecture="x", num_classes=max(1, len(names)), image_size=8, mean=half, std=half, label_names=names or None
    )


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("cat", "hot-dog", "red"),
        ("Cat", "hot_dog", "RED "),
        ("cat, feline", "sausage, hot dog", "red"),
        ("Katze", "hot dog", "rot"),
        ("1", "2", "3"),
    ],
)
def test_the_same_order_passes(names: tuple[str, ...]) -> None:
    require_label_order(_named(*names), SPACE)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ("cat", "red", "hot-dog"),
            "class 1 of the classifier is 'red', .*'mine' it is 'hot-dog', and 'red' is class 2",
        ),
        (("HOT_DOG, sausage", "cat", "red"), "class 0 of the classifier is 'HOT_DOG, sausage'"),
    ],
)
def test_another_order_names_the_first_that_differs(names: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        require_label_order(_named(*names), SPACE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["synsets", "lemmas"])
def test_imagenet_in_its_usual_order_passes_and_sorted_it_does_not(kind: str) -> None:
    info, space = ImageNetInfo("imagenet-1k"), load_label_space("imagenet1k")
    names = info.label_names() if kind == "synsets" else info.label_descriptions(detailed=False)
    require_label_order(_named(*names), space)
    with pytest.raises(InputError, match="class 0 of the classifier"):
        require_label_order(_named(*reversed(names)), space)
    with pytest.raises(InputError, match="class 3 of the classifier"):
        require_label_order(_named(*names[:3], names[4], names[3], *names[5:]), space)


def test_a_synset_stands_for_its_names() -> None:
    space = LabelSpace(name="fish", classes=(ClassLabel(name="goldfish"), ClassLabel(name="tench")))
    require_label_order(_named("n01443537", "n01440764"), space)
    with pytest.raises(InputError, match="'n01440764', of label space 'fish' it is 'goldfish'"):
        require_label_order(_named("n01440764", "n01443537"), space)
