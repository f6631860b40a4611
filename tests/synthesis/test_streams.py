"""What one stream makes and another reads is marked, waited for and kept: judged without a GPU.

``Timeline`` takes the place of a run's streams. It sees every operator of a run on the CPU, on which of its streams it
was given, and complains of each tensor that one stream reads before it knows that the other has made it.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.random_models import write_model
from prism_fast.config import LaunchConfig, RunConfig, assign, load_config
from prism_fast.dataset.plan import build_plan
from prism_fast.synthesis.overlap import pipelined
from prism_fast.synthesis.streams import CudaStreams, NoStreams, Stage, streams_of
from prism_fast.synthesis.synthesizer import Made, Synthesizer


@dataclass(frozen=True)
class Moment:
    """A place on a stream, and how far each stream had come as far as this one knew."""

    stream: str
    known: dict[str, int]


class _Watched(TorchDispatchMode):
    """Tells the timeline what each operator reads and makes."""

    def __init__(self, timeline: Timeline) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.timeline = timeline

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read, made = ([x for x in tree_leaves(one) if isinstance(x, torch.Tensor)] for one in ((args, kwargs), out))
        self.timeline.operator(func.overloadpacket.__name__, read, made, in_place=func._schema.is_mutable)
        return out


class Timeline:
    """Streams that remember; every ``on`` is a stream of its own, so nothing is in order by luck."""

    def __init__(self) -> None:
        self.races: list[str] = []
        self.given: Counter[str] = Counter()
        self.crossings: Counter[tuple[str, str]] = Counter()
        self._numbers, self._lock, self._local = count(), threading.Lock(), threading.local()
        self._clock: dict[str, int] = defaultdict(int)
        self._known: dict[str, dict[str, int]] = defaultdict(dict)
        self._made: dict[int, tuple[str, int]] = {}
        self._kept: set[tuple[int, str]] = set()
        self._alive: list[torch.Tensor] = []  # so that no two of them ever have one storage

    @property
    def _stream(self) -> str:
        return getattr(self._local, "stream", "default")

    @contextmanager
    def on(self, stage: Stage) -> Iterator[None]:
        with self._lock:
            before, number = self._stream, next(self._numbers)
            self._local.stream = "encode" if stage == "encode" else f"{stage} {number}"
        self.given[stage] += 1
        try:
            with _Watched(self):
                yield
        finally:
            self._local.stream = before

    def mark(self) -> Moment:
        with self._lock:
            return Moment(self._stream, {**self._known[self._stream], self._stream: self._clock[self._stream]})

    def take(self, mark: Moment, tensors: Iterable[torch.Tensor]) -> None:
        with self._lock:
            mine = self._known[self._stream]
            mine.update({stream: max(at, mine.get(stream, 0)) for stream, at in mark.known.items()})
            self._kept |= {(_storage(x), self._stream) for x in tensors}

    def operator(self, name: str, read: list[torch.Tensor], made: list[torch.Tensor], in_place: bool) -> None:
        with self._lock:
            stream = self._stream
            for storage in {_storage(x) for x in read} & self._made.keys():
                maker, at = self._made[storage]
                if maker == stream:
                    continue
                self.crossings[maker.split()[0], stream.split()[0]] += 1
                if self._known[stream].get(maker, 0) < at:
                    self.races.append(f"{name} on {stream} does not wait for {maker}")
                if (storage, stream) not in self._kept:
                    self.races.append(f"{name} on {stream} reads memory that {maker} may give away")
            self._clock[stream] += 1
            given = set() if in_place else {_storage(x) for x in read}
            for x in made:
                if _storage(x) in given:  # a view
                    continue
                self._made[_storage(x)] = (stream, self._clock[stream])
                self._alive.append(x)


def _storage(x: torch.Tensor) -> int:
    return int(x.untyped_storage()._cdata)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Two text encoders, pooled text and time ids."""
    model = write_model("sdxl", tmp_path_factory.mktemp("sdxl"), divide=32)
    return load_config("minis-emoji", (f"models.diffusion={model}", "sampling.steps=2", "guidance.window=[0, 1]"))


def run_on(timeline: Any, config: RunConfig, images: int = 6) -> list[Made]:
    """A run of batches of one, three denoised at once, one finished meanwhile."""
    run = Synthesizer.load(assign(config, {"sampling.batch_size": 1}))
    run.streams = timeline
    stages = (lambda rows: (rows, run.denoise(rows)), lambda pair: run.finish(*pair))
    return list(pipelined(run.parts(build_plan(config, images)), stages, 1, 3))


KINDS: dict[str, dict[str, Any]] = {
    "denoised": {},
    "latent": {"guidance.mode": "latent"},
    "savings": {"sampling.reuse_every": 2, "guidance.every": 2, "sampling.solver": "euler_ancestral"},
    "settled": {"guidance.settled_below": 0.0},
    "sdxl": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_read_before_it_is_made(kind: str, request: pytest.FixtureRequest) -> None:
    config: RunConfig = request.getfixturevalue("sdxl" if kind == "sdxl" else "config")
    timeline = Timeline()
    made = run_on(timeline, assign(config, KINDS[kind]))
    assert timeline.races == []
    assert timeline.given == {"encode": 6, "denoise": 6, "finish": 6}
    assert set(timeline.crossings) == {("encode", "denoise"), ("denoise", "finish")}
    assert sum(len(one.samples) for one in made) == 6


class Deaf(Timeline):
    """Waits for nothing."""

    def take(self, mark: Moment, tensors: Iterable[torch.Tensor]) -> None:
        self._kept |= {(_storage(x), self._stream) for x in tensors}


class Careless(Timeline):
    """Lets the memory go."""

    def take(self, mark: Moment, tensors: Iterable[torch.Tensor]) -> None:
        super().take(mark, ())


@pytest.mark.parametrize(("kind", "complaint"), [(Deaf, "does not wait for"), (Careless, "may give away")])
def test_the_timeline_sees_what_it_is_for(config: RunConfig, kind: type[Timeline], complaint: str) -> None:
    timeline = kind()
    run_on(timeline, config, 2)
    for stage in ("denoise", "finish"):
        assert any(complaint in race and f"on {stage}" in race for race in timeline.races)


def test_engines_and_unguided_runs_share_the_streams(config: RunConfig) -> None:
    """Memory that is free belongs to a stream: others of their own would double it."""
    run = Synthesizer.load(config)
    assert run.with_engines(run.engines).streams is run.streams
    assert run.unguided().streams is run.streams


def test_the_cpu_has_none(config: RunConfig) -> None:
    assert isinstance(Synthesizer.load(config).streams, NoStreams)
    assert isinstance(streams_of(torch.device("cpu"), LaunchConfig(streams=4)), NoStreams)


class Cuda:
    """In place of ``torch.cuda``: writes down what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.names = count()
        self.current = self.default = self._stream("default")

    def _stream(self, name: str) -> Any:
        def wait_stream(other: Any) -> None:
            self.said.append(f"{name} waits for {other.name}")

        def wait_event(event: Any) -> None:
            self.said.append(f"{name} waits for {event.at}")

        return _Object(name=name, wait_stream=wait_stream, wait_event=wait_event)

    def Stream(self, device: torch.device) -> Any:
        return self._stream(f"{device} {next(self.names)}")

    def Event(self) -> Any:
        return _Event()

    def current_stream(self, device: torch.device) -> Any:
        return self.current

    def default_stream(self, device: torch.device) -> Any:
        return self.default

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before


class _Event:
    at = "nothing"

    def record(self, stream: Any) -> None:
        self.at = f"what {stream.name} was given"


class _Object:
    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def record_stream(self, stream: Any) -> None:
        self.kept_by = stream.name


def names(streams: CudaStreams, *stages: Stage) -> list[str]:
    found = []
    for stage in stages:
        with streams.on(stage):
            found.append(streams.cuda.current.name)
    return found


GPU = torch.device("cuda:1")


def test_a_hand_over_is_a_wait_on_the_device_and_memory_that_is_kept() -> None:
    cuda = Cuda()
    streams, tensor = CudaStreams(GPU, 1, overlap=True, cuda=cuda), _Object()
    with streams.on("denoise"):
        denoising, mark = cuda.current.name, streams.mark()
    with streams.on("finish"):
        finishing = cuda.current.name
        streams.take(mark, [cast(torch.Tensor, tensor)])
    assert cuda.current is cuda.default
    assert cuda.said == [
        f"{denoising} waits for default",  # on which everything was loaded
        f"{finishing} waits for default",
        f"{finishing} waits for what {denoising} was given",
    ]
    assert tensor.kept_by == finishing != denoising


def test_stages_have_streams_of_their_own_taken_in_turn() -> None:
    """A batch that is only begun when the one before has been given to the GPU still gets another stream."""
    streams = CudaStreams(GPU, 2, overlap=True, cuda=Cuda())
    one, two, again = names(streams, "denoise", "denoise", "denoise")
    (finish, finish_again), (encode,) = names(streams, "finish", "finish"), names(streams, "encode")
    assert one == again
    assert finish == finish_again
    assert len({one, two, finish, encode}) == 4


def test_two_batches_at_once_are_on_two_streams_even_if_one_was_announced() -> None:
    streams = CudaStreams(GPU, 1, overlap=True, cuda=Cuda())
    with streams.on("denoise"):
        first, (second,) = streams.cuda.current.name, names(streams, "denoise")
    assert first != second
    assert set(names(streams, "denoise", "denoise")) == {first, second}


def test_where_nothing_overlaps_finishing_shares_the_memory_of_denoising() -> None:
    streams = CudaStreams(GPU, 1, overlap=False, cuda=Cuda())
    assert len(set(names(streams, "denoise", "finish", "denoise"))) == 1


def test_a_stream_is_given_back_by_a_batch_that_fails() -> None:
    streams = CudaStreams(GPU, 1, overlap=True, cuda=Cuda())
    with pytest.raises(RuntimeError), streams.on("denoise"):
        raise RuntimeError
    assert len(set(names(streams, "denoise", "denoise"))) == 1
