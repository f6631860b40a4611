"""A training step never waits for the GPU and copies a batch once: seen on a device that is faked.

Autograd does not work there, so every gradient is zeros; ``test_meta`` runs it on the meta device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from prism_fast.config import DistillConfig
from prism_fast.data import Batch, dali, open_loader
from prism_fast.data.dali import DaliLoader
from prism_fast.data.source import Source
from prism_fast.data.torch_loader import TorchLoader
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.distillation import Task, create_student
from prism_fast.distillation.learner import Learner
from prism_fast.distillation.optimizer import make_optimizer, restore_optimizer
from prism_fast.distillation.parallel import World
from prism_fast.distillation.speed import for_training
from prism_fast.distillation.train import make_trainer
from prism_fast.distillation.trainer import Trainer
from prism_fast.models.classifier import Classifier, ClassifierConfig
from tests.data.toy import MEAN, STD, config
from tests.gpu.fake import CUDA, Log, on_fake_cuda

TO = "cpu to cuda"
CLASSES = 3


class Batches:
    """A loader whose batches lie on the device already."""

    def __init__(self, settings: DistillConfig, device: torch.device) -> None:
        self.settings, self.device = settings, device

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        n, side = self.settings.batch_size, self.settings.image_size
        return Batch(
            torch.zeros(n, 3, side, side, device=self.device),
            torch.zeros(n, dtype=torch.int64, device=self.device),
            torch.zeros(n, CLASSES, device=self.device),
            np.arange(n),
        )

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return None

    def close(self) -> None:
        return None


def on_cpu(settings: DistillConfig, shards: ShardSet) -> Trainer:
    """A trainer whose live teacher, if it has one, sees pictures of 32 pixels."""
    net = create_student("test_resnet", CLASSES).eval()
    described = ClassifierConfig(architecture="test_resnet", num_classes=CLASSES, image_size=32, mean=MEAN, std=STD)
    task = Task(settings, shards, Path(), MEAN, STD, Classifier(net, described))
    return make_trainer(task, Batches(settings, torch.device("cpu")))


@contextmanager
def on_fake_gpu(settings: DistillConfig, shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trainer]:
    """A trainer all of whose tensors lie on a fake CUDA device; it was made on the CPU, where weights are drawn."""

    def backward(loss: torch.Tensor) -> None:
        for learner in made.learners:
            for parameter in learner.net.parameters():
                parameter.grad = torch.zeros_like(parameter)

    made = on_cpu(settings, shards)
    monkeypatch.setattr(torch.Tensor, "backward", backward)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        made.world, made.loader = World(CUDA), Batches(settings, CUDA)
        for learner in made.learners:
            _move(learner, mode)
        if made.teacher:
            on_fake_cuda(mode, made.teacher)
        yield made


def _move(learner: Learner, mode: FakeTensorMode) -> None:
    for module in (learner.net, learner.average.module, learner.loss):
        on_fake_cuda(mode, module)
    learner.net.requires_grad_()
    learner.world = World(CUDA)
    learner.optimizer = make_optimizer(learner.net, learner.recipe)


def silent(log: Log) -> bool:
    """Whether nothing was copied between devices and nothing was waited for."""
    return not log.waits and not log.copies


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion"])
@pytest.mark.parametrize("student", ["test_resnet", "test_vit"])
def test_a_step_copies_nothing_and_waits_for_nothing(
    shards: ShardSet, student: str, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(student=student, image_size=32, optimizer=optimizer, label_weight=0.2)
    with on_fake_gpu(settings, shards, monkeypatch) as made:
        for group in made.learners[0].optimizer.param_groups:
            if optimizer in ("adamw", "sgd"):
                assert group["fused"] is True
                group["fused"] = optimizer == "adamw"  # torch has no fake of SGD's fused kernel
        with Log() as log:
            for _ in range(3):
                found = made.train_step()["student"]
        assert (found.device.type, found.shape, made.step) == ("cuda", (4,), 3)
    assert silent(log), (log.waits, log.copies)


@pytest.mark.parametrize("changes", [{"accumulate": 2}, {"students": [{"name": "a"}, {"name": "b", "image_size": 16}]}])
def test_parts_and_several_students_wait_for_nothing(
    shards: ShardSet, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with on_fake_gpu(config(image_size=32, **changes), shards, monkeypatch) as made, Log() as log:
        made.train_step()
    assert silent(log), (log.waits, log.copies)


def test_a_live_teacher_waits_for_nothing_either(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    with on_fake_gpu(config(image_size=16, teacher="live"), shards, monkeypatch) as made, Log() as log:
        made.train_step()
    assert silent(log), (log.waits, log.copies)


def copies(log: Log) -> dict[tuple[str, bool], int]:
    """Copies between devices by way, and whether they block."""
    found: Counter[tuple[str, bool]] = Counter()
    for (way, blocks, _), n in log.copies.items():
        found[way, blocks] += n
    assert not log.waits
    return dict(found)


def test_the_torch_loader_copies_a_batch_once(shards: ShardSet) -> None:
    loader = TorchLoader(Source(shards, config(loader="torch")), torch.device("cpu"), MEAN, STD, 16)
    with FakeTensorMode(allow_non_fake_inputs=True):  # of this thread; the loader's own read and decode real bytes
        loader._device, loader._mean, loader._std = CUDA, loader._mean.to(CUDA), loader._std.to(CUDA)
        with Log() as log:
            batch = next(loader)
    loader.close()
    require_batch(batch)
    assert copies(log) == {(TO, False): 1}


def require_batch(batch: Batch) -> None:
    assert {x.device.type for x in (batch.images, batch.labels, batch.logits)} == {"cuda"}
    assert [x.dtype for x in (batch.images, batch.labels, batch.logits)] == [torch.float32, torch.int64, torch.float32]
    assert (batch.images.shape, batch.labels.shape, batch.logits.shape) == ((6, 3, 16, 16), (6,), (6, CLASSES))
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.positions.tolist()[1:] == [at + 1 for at in batch.positions.tolist()[:-1]]


class Pipe:
    """DALI's pipeline on a GPU: it takes a step from the loader and gives pictures in a buffer that is used again."""

    def __init__(self, loader: DaliLoader, log: list[str], device: torch.device) -> None:
        self.loader, self.log = loader, log
        self.images = torch.zeros(6, 16, 16, 3, device=device)

    def run(self) -> tuple[Output, ...]:
        self.log.append("run")
        self.loader._feed()
        return (Output(self.images),)


@dataclass
class Output:
    tensor: torch.Tensor

    def as_tensor(self) -> torch.Tensor:
        return self.tensor


@dataclass
class Event:
    log: list[str]

    def synchronize(self) -> None:
        self.log.append("copied")


def dali_loader(shards: ShardSet) -> DaliLoader:
    return DaliLoader(Source(shards, config()), torch.device("cpu"), MEAN, STD, 16)


def test_dalis_buffers_are_copied_once_and_not_used_again_before(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, order = dali_loader(shards), list[str]()
    monkeypatch.setattr(dali, "from_dlpack", lambda tensor: tensor)
    monkeypatch.setattr(dali, "_mark", lambda device: Event(order))
    with FakeTensorMode(allow_non_fake_inputs=True):
        pipe = Pipe(loader, order, CUDA)
        loader._device, loader._pipe = CUDA, pipe
        with Log() as log:
            batch = next(loader)
            next(loader)
        require_batch(batch)
        assert batch.images.untyped_storage() is not pipe.images.untyped_storage()
    loader.close()
    assert order == ["run", "copied", "run"]
    assert copies(log) == {(TO, False): 2}


def test_what_dali_gives_on_the_cpu_is_a_copy(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = dali_loader(shards)
    pipe = Pipe(loader, [], torch.device("cpu"))
    loader._pipe = pipe
    monkeypatch.setattr(dali, "from_dlpack", lambda tensor: tensor)
    batch = next(loader)
    loader.close()
    pipe.images.fill_(1)
    assert not batch.images.any()


def test_training_may_compute_faster_on_a_gpu_and_puts_the_settings_back() -> None:
    def now() -> list[Any]:
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        precisions = [cudnn.conv.fp32_precision, matmul.fp32_precision]  # type: ignore[attr-defined]
        return [cudnn.benchmark, cudnn.deterministic, *precisions]

    def interrupted() -> None:
        with for_training(CUDA):
            assert now() == [True, False, "tf32", "tf32"]
            raise KeyboardInterrupt

    before = now()
    with for_training(torch.device("cpu")):
        assert now() == before
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert now() == before


def test_a_checkpoint_of_the_cpu_goes_on_fused_on_a_gpu_and_back(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config()
    plain = on_cpu(settings, shards)
    plain.train_step()
    own = plain.learners[0].optimizer
    state = own.state_dict()
    with on_fake_gpu(settings, shards, monkeypatch) as made:
        theirs = made.learners[0].optimizer
        restore_optimizer(theirs, state)
        assert [group["fused"] for group in theirs.param_groups] == [True, True]
        assert {x["step"].device.type for x in theirs.state.values()} == {"cuda"}
        fused = {**state, "param_groups": [{**group, "fused": True} for group in state["param_groups"]]}
    restore_optimizer(own, fused)
    assert [group["fused"] for group in own.param_groups] == [None, None]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.parametrize("loader", ["torch", "dali"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_torch_itself_sees_no_wait(shards: ShardSet, loader: str, optimizer: str) -> None:
    """Its debug mode raises where the host would wait for the device; DALI's own events it does not see."""
    settings = config(loader=loader, optimizer=optimizer, precision="bfloat16", image_size=32)
    feed = open_loader(shards, settings, CUDA, MEAN, STD)
    made = make_trainer(Task(settings, shards, Path(), MEAN, STD, world=World(CUDA)), feed)
    made.train_step()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            found = made.train_step()["student"]
    finally:
        torch.cuda.set_sync_debug_mode(before)
        feed.close()
    assert found.isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_dalis_batches_stay_what_they_were_while_it_goes_on(shards: ShardSet) -> None:
    feed = open_loader(shards, config(), CUDA, MEAN, STD)
    kept = []
    for _ in range(8):
        torch.cuda._sleep(50_000_000)  # the copy waits behind other work
        batch = next(feed)
        kept.append((batch, batch.images.clone(), batch.logits.clone()))
    feed.close()
    again = list(islice(open_loader(shards, config(), CUDA, MEAN, STD), 8))
    for (batch, images, logits), other in zip(kept, again, strict=True):
        assert torch.equal(batch.images, images)
        assert torch.equal(images, other.images)
        assert torch.equal(logits, other.logits)
