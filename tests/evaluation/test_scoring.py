"""ImageNet's test sets as they lie on people's disks: the right class, among the right classes, or a refusal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from prism_fast.errors import DataError, InputError
from prism_fast.evaluation.scoring import score_pictures
from prism_fast.labels.imagenet import imagenet1k_synsets
from prism_fast.labels.load import load_label_space
from prism_fast.models.classifier import Classifier, ClassifierConfig

SIZE = 8
SYNSETS = imagenet1k_synsets()
NETTE = load_label_space("imagenette").indices


def draw(file: Path, label: int) -> None:
    """A picture of ImageNet's class ``label``: its red and green say which."""
    file.parent.mkdir(parents=True, exist_ok=True)
    colour = (8 * (label // 32), 8 * (label % 32), 0)
    Image.fromarray(np.full((SIZE, SIZE, 3), colour, np.uint8)).save(file, "PNG")


class Reader(nn.Module):
    """Reads the class off the colour; ``loud`` has a higher logit still, ``also`` a lower one than the class."""

    def __init__(self, loud: Iterable[int] = (), also: Iterable[int] = ()) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1), requires_grad=False)
        self.loud, self.also = list(loud), list(also)

    def forward(self, x: Tensor) -> Tensor:
        red, green = (x[:, :2].mean(dim=(2, 3)) * 255 / 8).round().long().T
        logits = nn.functional.one_hot(32 * red + green, 1024)[:, :1000].float() * self.scale
        logits[:, self.loud] += 2
        logits[:, self.also] += 0.5
        return logits


def classifier(net: nn.Module | None = None, classes: int = 1000, names: tuple[str, ...] | None = None) -> Classifier:
    config = ClassifierConfig(
        architecture="",
        num_classes=classes,
        image_size=SIZE,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        label_names=names,
        crop_pct=1.0,
    )
    return Classifier(net or Reader(), config)


class Student(nn.Module):
    """Imagenette's ten, read off the same colours."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = Reader()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.whole(x)
        return logits[:, list(NETTE)]


def info(name: str) -> list[str]:
    """A list of WordNet ids that timm carries."""
    return (resources.files("timm.data") / "_info" / name).read_text().split()


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet-V2: folders 0 to 999."""
    root = tmp_path_factory.mktemp("v2")
    for label in range(1000):
        draw(root / str(label) / "a.jpeg", label)
    return root


def test_imagenet_v2_goes_by_number(numbered: Path) -> None:
    """Sorted by name, 10 comes before 2: nine in ten classes would be another."""
    found = score_pictures("it", classifier(), numbered, 256)
    assert (found.top1, found.n, found.classes, found.classes_scored, found.left_out) == (1.0, 1000, 1000, 1000, 0)
    assert found.matched == "by number"
    named = classifier(names=tuple(cls.name for cls in load_label_space("imagenet1k").classes))
    assert score_pictures("it", named, numbered, 256).top1 == 1.0


@pytest.mark.parametrize("network", [classifier(), classifier(Student(), 10)], ids=["of all", "of ten"])
def test_of_imagenet_v2_a_part_is_looked_at(numbered: Path, network: Classifier) -> None:
    found = score_pictures("it", network, numbered, 256, "imagenette")
    assert (found.top1, found.n, found.classes, found.classes_scored, found.left_out) == (1.0, 10, 10, 10, 990)


@pytest.mark.parametrize("name", ["imagenet_r_synsets.txt", "imagenet_a_synsets.txt"])
def test_imagenet_r_and_a_are_scored_among_their_200(tmp_path: Path, name: str) -> None:
    """A class that the test set lacks is called every time: among 1,000 logits nothing would be right."""
    synsets = info(name)
    for synset in synsets:
        draw(tmp_path / synset / "b.jpg", SYNSETS.index(synset))
    absent = next(label for label, synset in enumerate(SYNSETS) if synset not in synsets)
    found = score_pictures("it", classifier(Reader(loud=[absent])), tmp_path, 64)
    assert (found.top1, found.n, found.classes, found.classes_scored) == (1.0, 200, 1000, 200)
    present = SYNSETS.index(synsets[0])
    assert score_pictures("it", classifier(Reader(loud=[present])), tmp_path, 64).top1 == 1 / 200


def test_imagenet_sketch_goes_by_wordnet_id(tmp_path: Path) -> None:
    for label, synset in enumerate(SYNSETS):
        draw(tmp_path / synset / f"sketch_{label % 3}.JPEG", label)
    found = score_pictures("it", classifier(), tmp_path, 256)
    assert (found.top1, found.classes_scored, found.matched) == (1.0, 1000, "by the names of imagenet1k")
    part = score_pictures("it", classifier(Student(), 10), tmp_path, 256, "imagenette")
    assert (part.top1, part.n, part.left_out) == (1.0, 10, 990)


def test_a_part_of_a_part_by_its_own_numbers(tmp_path: Path) -> None:
    for label in (0, 3, 9):
        draw(tmp_path / str(label) / "a.png", NETTE[label])
    found = score_pictures("it", classifier(), tmp_path, 4, "imagenette")
    assert (found.top1, found.n, found.classes, found.classes_scored, found.left_out) == (1.0, 3, 10, 3, 0)
    (tmp_path / "217").mkdir()
    with pytest.raises(DataError, match=r"1 of 4 class folders match no class of label space 'imagenette' \(217\)"):
        score_pictures("it", classifier(), tmp_path, 4, "imagenette")


def test_nothing_of_the_part_and_unknown_folders_are_refused(tmp_path: Path) -> None:
    draw(tmp_path / SYNSETS[1] / "a.png", 1)
    with pytest.raises(DataError, match="has no pictures of the 10 classes of imagenette"):
        score_pictures("it", classifier(), tmp_path, 4, "imagenette")
    draw(tmp_path / "zebrafish" / "a.png", 1)
    with pytest.raises(DataError, match=r"match no class of label space 'imagenette' \(zebrafish\)"):
        score_pictures("it", classifier(), tmp_path, 4, "imagenette")


@pytest.fixture
def validation(tmp_path: Path) -> Path:
    """Five validation pictures side by side, of classes 0, 217, 701, 3 and 0."""
    root = tmp_path / "val"
    for number, label in enumerate((0, 217, 701, 3, 0), 1):
        draw(root / f"ILSVRC2012_val_{number:08d}.JPEG", label)
    return root


KAGGLE = """ImageId,PredictionString
ILSVRC2012_val_00000003,n03888257 85 1 499 272
ILSVRC2012_val_00000001,n01440764 1 2 3 4 n01440764 5 6 7 8
ILSVRC2012_val_00000002,n02102040 131 0 499 254
ILSVRC2012_val_00009999,n02102040 131 0 499 254
ILSVRC2012_val_00000005,n01440764 131 0 499 254
"""
CAFFE = "ILSVRC2012_val_00000001.JPEG 0\nILSVRC2012_val_00000002.JPEG 217\n\nILSVRC2012_val_00000003.JPEG 701\n"
TABS = "\ufeffval/ILSVRC2012_val_00000001.JPEG\ttench\r\nILSVRC2012_val_00000003\tParachute\r\n"


@pytest.mark.parametrize(
    ("text", "n", "classes_scored"), [(KAGGLE, 4, 3), (CAFFE, 3, 3), (TABS, 2, 2)], ids=["kaggle", "caffe", "tabs"]
)
def test_pictures_side_by_side_with_a_file(validation: Path, text: str, n: int, classes_scored: int) -> None:
    file = validation.parent / "truth.csv"
    file.write_text(text, encoding="utf-8", newline="")
    found = score_pictures("it", classifier(), validation, 4, ground_truth=file)
    assert (found.top1, found.n, found.left_out, found.classes_scored) == (1.0, n, 5 - n, classes_scored)


def test_of_a_file_too_a_part_is_looked_at(validation: Path) -> None:
    file = validation.parent / "truth.csv"
    file.write_text(KAGGLE + "ILSVRC2012_val_00000004,n01491361 1 2 3 4\n")
    found = score_pictures("it", classifier(Student(), 10), validation, 4, "imagenette", ground_truth=file)
    assert (found.top1, found.n, found.left_out, found.classes) == (1.0, 4, 1, 10)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("490\n361\n171\n822\n297\n", "numbers alone, as ILSVRC2012_validation_ground_truth.txt: .* own order"),
        ("", "is empty"),
        ("a.png,n01440764\n", "names none of the 5 pictures"),
        ("ILSVRC2012_val_00000001,\n", "line 1: 'ILSVRC2012_val_00000001,' is no picture's name and class"),
        ("ILSVRC2012_val_00000001 1\nILSVRC2012_val_00000001 2\n", "line 2: ILSVRC2012_val_00000001 is '2' there"),
        ("ILSVRC2012_val_00000001 1\nILSVRC2012_val_00000002 1000\n", r"1 of 2 classes of the file .*\(1000\)"),
    ],
)
def test_a_file_that_does_not_say_it_is_refused(validation: Path, text: str, said: str) -> None:
    file = validation.parent / "truth.txt"
    file.write_text(text)
    with pytest.raises(DataError, match=said) as caught:
        score_pictures("it", classifier(), validation, 4, ground_truth=file)
    assert "\n" not in str(caught.value)


def test_side_by_side_without_a_file_says_what_to_give(validation: Path) -> None:
    with pytest.raises(DataError, match=r"is not an ImageFolder .*--ground-truth FILE"):
        score_pictures("it", classifier(), validation, 4)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        score_pictures("it", classifier(), validation, 4, ground_truth=Path("nothing.csv"))
    with pytest.raises(DataError, match="is no directory with pictures in it"):
        score_pictures("it", classifier(), validation / "none", 4, ground_truth=Path("nothing.csv"))


def test_reassessed_labels(validation: Path) -> None:
    """Right: 1 (of two), 3; wrong: 5, in the five highest 2; left out: 4. Whatever folder a picture lies in."""
    (validation / "n01440764").mkdir()
    first = "ILSVRC2012_val_00000001.JPEG"
    (validation / first).rename(validation / "n01440764" / first)
    file = validation.parent / "real.json"
    file.write_text(json.dumps([[5, 0], [9], [701], [], [1]]))
    found = score_pictures("it", classifier(Reader(also=[9])), validation, 2, real=file)
    assert (found.top1, found.n, found.left_out) == (0.5, 4, 1)
    assert found.top5 >= 0.75
    assert (found.classes, found.classes_scored, found.per_class) == (1000, 1000, ())


def test_reassessed_labels_are_those_that_timm_carries(tmp_path: Path) -> None:
    """The first pictures with their labels, each drawn as its last one; the file is that of reassessed-imagenet."""
    file = Path(str(resources.files("timm.data") / "_info" / "imagenet_real_labels.json"))
    labels = json.loads(file.read_text())
    assert len(labels) == 50_000
    for number, right in enumerate(labels[:60], 1):
        draw(tmp_path / f"ILSVRC2012_val_{number:08d}.JPEG", right[-1] if right else 0)
    found = score_pictures("it", classifier(), tmp_path, 32, real=file)
    empty = sum(not right for right in labels[:60])
    assert (found.top1, found.n, found.left_out) == (1.0, 60 - empty, empty)
    assert empty > 0


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("[", "is not JSON"),
        ("{}", "expected a list of lists of labels below 1000"),
        ("[1, 2]", "expected a list of lists"),
        ("[[1000], [1], [2], [3], [4]]", r"item 0 is \[1000\]"),
        ("[[true], [1], [2], [3], [4]]", "item 0"),
        ("[[1]]", r"val_00000002\.JPEG is not one of the 1 pictures"),
        ("[[], [], [], [], []]", "has no label for any of the 5"),
    ],
)
def test_a_file_that_is_no_real_json_is_refused(validation: Path, document: str, said: str) -> None:
    file = validation.parent / "real.json"
    file.write_text(document)
    with pytest.raises(DataError, match=said):
        score_pictures("it", classifier(), validation, 4, real=file)


def test_reassessed_labels_need_all_of_imagenet_in_its_order(validation: Path) -> None:
    file = validation.parent / "real.json"
    file.write_text("[[0], [0], [0], [0], [0]]")
    with pytest.raises(InputError, match="it tells 10 classes apart, the reassessed labels are of ImageNet's 1000"):
        score_pictures("it", classifier(Student(), 10), validation, 4, real=file)
    with pytest.raises(InputError, match="--labels is imagenette; leave it out"):
        score_pictures("it", classifier(), validation, 4, "imagenette", real=file)
    with pytest.raises(InputError, match="give one of them"):
        score_pictures("it", classifier(), validation, 4, real=file, ground_truth=file)
    names = tuple(cls.name for cls in reversed(load_label_space("imagenet1k").classes))
    with pytest.raises(InputError, match="class 0 of the classifier"):
        score_pictures("it", classifier(names=names), validation, 4, real=file)


def test_two_pictures_of_one_name_are_refused(validation: Path) -> None:
    draw(validation / "again" / "ILSVRC2012_val_00000001.png", 0)
    file = validation.parent / "truth.csv"
    file.write_text(KAGGLE)
    with pytest.raises(DataError, match="are called the same"):
        score_pictures("it", classifier(), validation, 4, ground_truth=file)
