"""What a classifier costs: counted by hand, compared with the file, timed where a backend is there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from prism_fast.errors import InputError, PrismError
from prism_fast.evaluation.comparison import Evaluation, Scored
from prism_fast.evaluation.cost import BACKENDS, BATCHES, Cost, Latency, cost_of, multiply_adds
from prism_fast.evaluation.gather import _numbers
from prism_fast.models.classifier import Classifier, ClassifierConfig, load_classifier, save_classifier
from tests.tiny import make_teacher, make_timm_hub


class Small(nn.Module):
    """A grouped convolution, attention over its pixels, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.conv(x)).flatten(2).transpose(1, 2)[:, None]
        seen = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        logits: torch.Tensor = self.head(seen.mean((1, 2)))
        return logits


def classifier(net: nn.Module, size: int = 8) -> Classifier:
    pixels = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    config = ClassifierConfig(architecture="small", num_classes=5, image_size=size, **pixels)
    return Classifier(net.eval().requires_grad_(False), config)


def test_what_is_counted_is_what_a_pencil_counts() -> None:
    found = cost_of(classifier(Small()))
    tokens = 4 * 4
    convolution, attention, head = tokens * 6 * 9, 2 * tokens * tokens * 6, 6 * 5
    assert found.gmac == pytest.approx((convolution + attention + head) / 1e9, rel=1e-9)
    assert found.parameters == 6 * 9 + 2 * 6 + 6 * 5 + 5
    floats = found.parameters + 2 * 6  # running mean and variance; beside them a counter of 64 bits
    assert (found.size_bytes, found.half_size_bytes) == (4 * floats + 8, 2 * floats + 8)
    assert (found.image_size, found.latency, found.left_out) == (8, (), ())


def test_a_larger_image_costs_more() -> None:
    small, large = (cost_of(classifier(Small()), size) for size in (8, 16))
    assert large.gmac > 4 * small.gmac  # attention grows faster than the number of pixels
    assert large.parameters == small.parameters


@pytest.mark.parametrize("half", [False, True])
def test_sizes_are_those_of_the_file(tmp_path: Path, half: bool) -> None:
    teacher = load_classifier(str(make_teacher(tmp_path / "teacher")))
    save_classifier(teacher.net, teacher.config, tmp_path / "out", torch.float16 if half else torch.float32)
    found, tensors = cost_of(teacher), len(teacher.net.state_dict())
    wanted = found.half_size_bytes if half else found.size_bytes
    assert 0 < (tmp_path / "out" / "model.safetensors").stat().st_size - wanted < 150 * tensors


def test_eager_is_timed_alone_and_in_a_batch() -> None:
    found = cost_of(classifier(Small()), latency=("eager",)).latency
    assert [(one.backend, one.batch) for one in found] == [("eager", batch) for batch in BATCHES]
    assert all(one.ms > 0 and one.threads == torch.get_num_threads() for one in found)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PrismError, match="backend 'nothing' is unknown"):
        cost_of(classifier(Small()), latency=("nothing",))
    with pytest.raises(InputError, match="image_size is 48"):
        cost_of(load_classifier(str(make_timm_hub(tmp_path / "vit", "vit_tiny_patch16_224"))), 48)


def test_a_backend_that_cannot_run_says_why() -> None:
    if torch.cuda.is_available():
        pytest.skip("TensorRT may run here")
    found = cost_of(classifier(Small()), latency=("tensorrt", "eager"))
    assert {one.backend for one in found.latency} == {"eager"}
    assert len(found.left_out) == 1
    assert found.left_out[0].startswith("tensorrt: ")


@pytest.mark.slow
def test_compiled_backends_are_timed() -> None:
    for module in ("onnxscript", "openvino", "onnxruntime"):
        pytest.importorskip(module)
    found = cost_of(classifier(Small()), latency=BACKENDS)
    assert [(one.backend, one.batch) for one in found.latency] == [(n, b) for n in BACKENDS for b in BATCHES]
    assert found.left_out == ()


def test_the_count_does_not_change_the_network() -> None:
    net = Small().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    multiply_adds(net, 8)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_the_report_shows_costs_and_reads_evaluations_without_them() -> None:
    scored = Scored(
        network="guided", test_set="known", n=1, top1=1, top5=1, low=0, high=1, per_class=(1.0,), confusion=((1,),)
    )
    plain = Evaluation(scores=(scored,), sets=(), real_energies=(), features="none")
    older = plain.model_dump_json(exclude={"costs"})
    assert Evaluation.model_validate_json(older) == plain
    cost = Cost(1234, 0.5, 64, 5000, 2500, (Latency("eager", 1, 2.5, 2), Latency("eager", 32, 40.0, 2)))
    full = plain.model_copy(update={"costs": {"guided": cost}})
    again = Evaluation.model_validate_json(full.model_dump_json())
    assert again == full
    rows = {row.name: row.value for row in _numbers(again)}
    assert rows["student of guided images: parameters"] == 1234
    assert rows["student of guided images: multiply-adds"] == 0.5
    assert rows["student of guided images: weights"] == 0.005
    assert rows["student of guided images: eager, 32 images"] == 40.0
    assert len(_numbers(plain)) == 1
