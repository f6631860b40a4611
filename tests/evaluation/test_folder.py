"""A folder of pictures is scored batch by batch, and among its own classes."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import prism_fast
from prism_fast.errors import DataError, InputError, RunError
from prism_fast.evaluation import folder as module
from prism_fast.evaluation.accuracy import MAX_CONFUSION, Tally, score_logits
from prism_fast.evaluation.comparison import score_bundled
from prism_fast.evaluation.folder import Crop, crop_of, open_folder
from prism_fast.evaluation.scoring import score_folder, score_pictures
from prism_fast.models.classifier import (
    Classifier,
    ClassifierConfig,
    load_classifier,
    outline_classifier,
    save_classifier,
)
from prism_fast.operations.export import export
from tests.cli.conftest import restored
from tests.tiny import make_teacher, make_timm_hub

SIZE = 8


class _Brightness(nn.Module):
    """Class i is the one of brightness (i + 1/2) / classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        level = x.mean(dim=(1, 2, 3))[:, None] * self.classes
        return -(level - torch.arange(self.classes) - 0.5).abs()


def classifier(classes: int, net: nn.Module | None = None) -> Classifier:
    config = ClassifierConfig(
        architecture="", num_classes=classes, image_size=SIZE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    return Classifier(net or _Brightness(classes), config)


def draw(folder: Path, label: int, classes: int, count: int) -> None:
    folder.mkdir(parents=True)
    level = round(255 * (label + 0.5) / classes)
    for i in range(count):
        Image.fromarray(np.full((12 + i % 3, 10, 3), level, np.uint8)).save(folder / f"{i}.png")


def pictures(root: Path, labels: list[int], classes: int, count: int = 2) -> Path:
    for label in labels:
        draw(root / str(label), label, classes, count)
    return root


def test_classes_in_any_order_of_their_folders(tmp_path: Path) -> None:
    """In the alphabet's order 10 comes before 2."""
    found = score_folder(
        "it", classifier(12), open_folder(pictures(tmp_path / "p", list(range(12)), 12)), Crop(SIZE), 5
    )
    assert (found.top1, found.top5, found.n, found.classes, found.classes_scored) == (1.0, 1.0, 24, 12, 12)
    assert found.per_class == (1.0,) * 12
    assert found.confusion == tuple(tuple(2 * int(i == j) for j in range(12)) for i in range(12))
    assert (found.test_set, found.matched) == (str(tmp_path / "p"), "by number")


def test_a_subset_is_scored_among_its_own_classes(tmp_path: Path) -> None:
    """A network that always says 7 next: among the folder's classes its second guess counts, as for ImageNet-A."""

    class Distracted(_Brightness):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 100 * (torch.arange(self.classes) == 7)

    folder = open_folder(pictures(tmp_path / "p", [3, 11, 5], 12, count=3))
    found = score_folder("it", classifier(12, Distracted(12)), folder, Crop(SIZE), 4)
    assert (found.top1, found.n, found.classes_scored, found.classes) == (1.0, 9, 3, 12)
    assert [i for i, right in enumerate(found.per_class) if right == 1.0] == [3, 5, 11]
    assert found.per_class.count(None) == 9
    assert found.confusion[11][11] == 3


def test_no_confusion_matrix_of_many_classes(tmp_path: Path) -> None:
    classes = MAX_CONFUSION + 1
    folder = open_folder(pictures(tmp_path / "p", [0, 64], classes))
    assert score_folder("it", classifier(classes), folder, Crop(SIZE), 5).confusion == ()


def test_the_tally_counts_what_the_whole_matrix_says() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(83, 11), torch.randint(0, 10, (83,))
    tally = Tally(11, range(11))
    for part in torch.arange(83).split(9):
        tally.add(logits[part], labels[part])
    wanted = score_logits(logits, labels)
    assert (tally.n, tally.top1, tally.per_class()) == (83, wanted.top1, wanted.per_class)
    assert tally.top5 == pytest.approx(wanted.top5)
    assert tally.confusion() == tuple(map(tuple, wanted.confusion.tolist()))


def test_at_most_one_batch_of_decoded_pictures_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most, decode = 0, 0, module._Pictures.__getitem__

    class Held:
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def counting(self: module._Pictures, place: int) -> module._Decoded:
        nonlocal alive, most
        item = decode(self, place)
        assert not isinstance(item, str)
        item[0].held = Held()  # type: ignore[attr-defined]
        alive += 1
        most = max(most, alive)
        return item

    monkeypatch.setattr(module._Pictures, "__getitem__", counting)
    folder = open_folder(pictures(tmp_path / "p", [0, 1, 2], 3, count=100))
    assert score_folder("it", classifier(3), folder, Crop(SIZE), 16).n == 300
    assert (most, alive) == (16, 0)


def test_workers_give_the_same_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = open_folder(pictures(tmp_path / "p", [0, 1, 2], 3, count=5))
    alone = list(folder.batches(Crop(SIZE), 4))
    monkeypatch.setattr(module, "_workers", lambda *_: 1)
    shared = list(folder.batches(Crop(SIZE), 4))
    assert [len(images) for images, _ in alone] == [4, 4, 4, 3]
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_little_shared_memory_means_few_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(32)))
    usage = namedtuple("usage", "total used free")
    for free, workers in ((2**40, 16), (64 << 20, 0), (200 << 20, 2)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage(0, 0, free))
        assert module._workers(50_000, 20 << 20) == workers
    assert module._workers(1000, 1) == 0


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n half a file", None], ids=["empty", "garbage", "truncated"])
def test_a_picture_that_cannot_be_read_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes | None, workers: int
) -> None:
    """Before: a traceback without the picture's name."""
    monkeypatch.setattr(module, "_workers", lambda *_: workers)
    root = pictures(tmp_path / "p", [0, 1], 3)
    bad = root / "1" / "1.png"
    bad.write_bytes(bad.read_bytes()[:45] if data is None else data)
    with pytest.raises(
        DataError, match=r"the picture .*/1/1\.png cannot be read \(.+\); replace or delete it"
    ) as caught:
        score_folder("it", classifier(3), open_folder(root), Crop(SIZE), 3)
    assert "\n" not in str(caught.value)


def test_what_is_no_folder_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, words in ((tmp_path / "none", "not an ImageFolder"), (tmp_path / "file", "not an ImageFolder")):
        with pytest.raises(DataError, match=words):
            open_folder(path)
    (tmp_path / ".hidden").mkdir()
    with pytest.raises(DataError, match="holds no picture in its 0 class folders"):
        open_folder(tmp_path)
    (tmp_path / "0").mkdir()
    with pytest.raises(DataError, match="holds no picture in its 1 class folders"):
        open_folder(tmp_path)


def test_hidden_folders_are_no_classes_and_empty_ones_are(tmp_path: Path) -> None:
    root = pictures(tmp_path / "p", [0, 1], 3)
    shutil.copytree(root / "0", root / ".ipynb_checkpoints")
    (root / "2").mkdir()
    found = score_folder("it", classifier(3), open_folder(root), Crop(SIZE), 8)
    assert (found.n, found.classes_scored, found.per_class) == (4, 3, (1.0, 1.0, None))


def test_one_class_or_a_broken_network_is_refused(tmp_path: Path) -> None:
    folder = open_folder(pictures(tmp_path / "one", [1], 3))
    with pytest.raises(InputError, match="the test set has 1 class"):
        score_folder("it", classifier(3), folder, Crop(SIZE), 8)
    folder = open_folder(pictures(tmp_path / "two", [0, 1], 3))
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        score_folder("it", classifier(3), folder, Crop(SIZE), 0)

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 3), torch.nan)

    with pytest.raises(RunError, match="Broken gave NaN or infinity for 3 of 3 images"):
        score_folder("it", classifier(3, Broken()), folder, Crop(SIZE), 3)


def test_the_crop_is_timms_for_its_own_weights() -> None:
    import timm

    data = timm.data.resolve_model_data_config(timm.create_model("test_efficientnet", pretrained=False))
    found = crop_of(outline_classifier("test_efficientnet").config)
    assert (found.crop_pct, found.interpolation) == (data["crop_pct"], data["interpolation"])
    assert crop_of(classifier(3).config) == Crop(SIZE, 0.875)


def test_a_hub_directory_is_cropped_as_its_configuration_says(tmp_path: Path) -> None:
    path = make_timm_hub(tmp_path / "hub")
    file = path / "config.json"
    document = json.loads(file.read_text())
    document["pretrained_cfg"] |= {"crop_pct": 0.95, "interpolation": "bicubic", "crop_mode": "center"}
    file.write_text(json.dumps(document))
    found = load_classifier(str(path))
    assert crop_of(found.config) == Crop(32, 0.95, "bicubic")
    again = save_classifier(found.net, found.config, tmp_path / "again")
    assert crop_of(load_classifier(str(again)).config) == Crop(32, 0.95, "bicubic")


def test_what_is_cropped_differently_is_seen_differently(tmp_path: Path) -> None:
    """A frame of another brightness is cut away, or is not: the whole way from the configuration to the score."""
    pixels = np.full((40, 40, 3), 255, np.uint8)
    pixels[8:32, 8:32] = 42  # of three classes the first
    for label in (0, 2):
        (tmp_path / "p" / str(label)).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "p" / str(label) / "a.png")
    tops = []
    for crop_pct in (0.5, 1.0):
        config = classifier(3).config.model_copy(update={"crop_pct": crop_pct})
        found = score_pictures("it", Classifier(_Brightness(3), config), tmp_path / "p", 4)
        tops.append(found.per_class)
    assert tops == [(1.0, None, 0.0), (0.0, None, 1.0)]


def test_the_centre_of_the_picture_is_seen(tmp_path: Path) -> None:
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, 16:80] = 200  # what is left and right of the centre is not seen
    (tmp_path / "0").mkdir()
    Image.fromarray(pixels).save(tmp_path / "0" / "a.png")
    ((images, _),) = open_folder(tmp_path).batches(Crop(32), 4)
    assert images.shape == (1, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert int(images.min()) == 200


def test_the_bundled_sets_need_a_network_of_their_classes() -> None:
    with pytest.raises(
        InputError, match="it tells 3 classes apart, the bundled test sets have 16; give --pictures DIR"
    ):
        score_bundled("it", classifier(3), 8)
    with pytest.raises(InputError, match="--labels emoji is for a folder"):
        score_bundled("it", classifier(16), 8, "emoji")


@pytest.fixture(scope="module")
def emoji(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundled test pictures in folders of their classes' names."""
    from prism_fast.evaluation.real_sets import KNOWN, real_sets
    from prism_fast.labels.load import load_label_space

    names = [cls.name for cls in load_label_space("emoji").classes]
    found, root = real_sets().tests[KNOWN], tmp_path_factory.mktemp("emoji")
    for i, (image, label) in enumerate(zip(found.images, found.labels.tolist(), strict=True)):
        folder = root / names[label]
        folder.mkdir(exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
    return root


def test_the_teacher_knows_its_pictures_whatever_the_folders_are_called(emoji: Path, tmp_path: Path) -> None:
    """Before: 77 % in folders with numbers, 0.3 % in folders of names."""
    from prism_fast.evaluation.class_folders import folder_names
    from prism_fast.labels.load import load_label_space

    names = [cls.name for cls in load_label_space("emoji").classes]
    numbered = tmp_path / "numbered"
    for name, folder in zip(names, folder_names(names), strict=True):
        shutil.copytree(emoji / name, numbered / folder)
    with restored():
        (named,) = prism_fast.evaluate("minis", emoji)
        (counted,) = prism_fast.evaluate("minis", numbered, labels="emoji", batch_size=50)
    assert named.top1 == pytest.approx(counted.top1)
    assert named.top1 > 0.6
    assert named.per_class == counted.per_class


def test_our_export_is_evaluated_by_our_student(finished: Path, tmp_path: Path) -> None:
    export(finished, tmp_path / "out", "imagefolder")
    with restored():
        (found,) = prism_fast.evaluate(make_teacher(tmp_path / "teacher"), tmp_path / "out")
    assert (found.n, found.classes_scored, found.matched) == (10, 3, "by number")
    assert load_classifier(str(tmp_path / "teacher")).config.num_classes == 3
