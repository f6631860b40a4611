from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from prism_engines.backends.openvino import OpenVinoBackend
from prism_engines.backends.tensorrt import TensorRtBackend
from prism_engines.errors import EngineError, EngineInputError
from prism_engines.store import Store

from prism_fast.compile.load import compile_run
from prism_fast.compile.parts import Parts
from prism_fast.config import RunConfig, load_config
from prism_fast.dataset.plan import build_plan
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.errors import ConfigError, InputError
from prism_fast.synthesis.synthesizer import Synthesizer
from prism_fast.workers.synthesize import synthesize
from tests.compile.conftest import NAMES, Shelf, one_line, under
from tests.damage import flip

TARS = ("000000.tar", "000001.tar")


def wanting(path: Path, *assignments: str) -> RunConfig:
    return load_config(str(path), assignments)


def pictures(out: Path) -> dict[str, np.ndarray]:
    found = {}
    for name in TARS:
        with tarfile.open(out / "shards" / name) as tar:
            for member in tar.getmembers():
                if member.name.endswith(".png"):
                    data = tar.extractfile(member)
                    assert data is not None
                    found[member.name] = np.asarray(Image.open(io.BytesIO(data.read()))).astype(int)
    return found


def stored(warm: Path, backend: str) -> dict[str, str]:
    return {r.key.part: r.digest for r in Store(warm).records() if r.key.backend == backend}


@pytest.fixture(scope="module")
def eager(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("eager") / "run"
    synthesize(wanting(path, "engines.backend=eager"), out)
    return out


@pytest.fixture(scope="module")
def compiled(config: RunConfig, warm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on OpenVINO's engines."""
    out = tmp_path_factory.mktemp("compiled") / "run"
    synthesize(config, out, store=warm)
    return out


def test_eager_is_returned_as_it_is(run: Synthesizer, path: Path, tmp_path: Path) -> None:
    plain = under(run, wanting(path, "engines.backend=eager"))
    made = compile_run(plain, {}, print, tmp_path / "store")
    assert made.synthesizer is plain
    assert made.digests == {}
    assert not (tmp_path / "store").exists()
    with pytest.raises(InputError, match=r"begun with compiled engines; set engines\.backend as it was"):
        compile_run(plain, {"unet": "0" * 64}, print, tmp_path / "store")


def test_compiled_pictures_are_the_eager_ones(eager: Path, compiled: Path) -> None:
    wanted, found = pictures(eager), pictures(compiled)
    assert sorted(found) == sorted(wanted)
    assert len(found) == 6
    errors = np.concatenate([np.abs(found[name] - wanted[name]).ravel() for name in wanted])
    assert (errors > 2).mean() < 0.01
    assert np.concatenate([image.ravel() for image in wanted.values()]).std() > 10


def test_shards_name_their_engines(eager: Path, compiled: Path, warm: Path) -> None:
    records = RunDirectory(compiled).records()
    assert [r.engines for r in records.values()] == [stored(warm, "openvino")] * 2
    assert {r.planned: r.rows for r in records.values()} == {4: 4, 2: 2}  # the second batch is half empty
    assert [r.engines for r in RunDirectory(eager).records().values()] == [{}, {}]


def test_a_warm_store_builds_nothing_and_gives_the_same_bytes(
    config: RunConfig, compiled: Path, warm: Path, tmp_path: Path, builds: list[str]
) -> None:
    said: list[str] = []
    synthesize(config, tmp_path / "again", store=warm, log=said.append)
    assert builds == []
    assert said == [f"{p}: openvino fp32, engine {stored(warm, 'openvino')[p][:12]}" for p in NAMES]
    for name in (*TARS, "000000.idx", "000001.idx"):
        assert (tmp_path / "again" / "shards" / name).read_bytes() == (compiled / "shards" / name).read_bytes()


def test_a_cold_store_is_filled_on_first_use(path: Path, run: Synthesizer, tmp_path: Path, builds: list[str]) -> None:
    config = wanting(path, "engines.backend=onnxruntime", "engines.parts=[text_encoder]")
    said: list[str] = []
    made = compile_run(under(run, config), {}, said.append, tmp_path / "store")
    assert builds == ["onnxruntime"]
    assert said[0] == "text_encoder: building with onnxruntime in fp32"
    assert list(made.digests) == ["text_encoder"]
    assert made.synthesizer.engines.unet.name == "unet"
    assert compile_run(under(run, config), made.digests, said.append, tmp_path / "store").digests == made.digests
    assert builds == ["onnxruntime"]


def test_rows_do_not_depend_on_how_full_their_batch_is(run: Synthesizer, config: RunConfig, warm: Path) -> None:
    synthesizer = compile_run(run, {}, print, warm).synthesizer
    rows = build_plan(config, 4)
    full, part = synthesizer.make(rows), synthesizer.make(rows[:3])
    assert [s.index for s in part.samples] == [0, 1, 2]
    for one, other in zip(part.samples, full.samples[:3], strict=True):
        difference = (one.image.int() - other.image.int()).abs()
        assert difference.max() <= 1


def test_an_unfinished_run_goes_on_with_its_engines(
    config: RunConfig, warm: Path, compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builds: list[str]
) -> None:
    out = tmp_path / "run"
    synthesize(config, out, store=warm)
    shards = out / "shards"
    (shards / "000001.json").unlink()
    finished = (shards / "000000.tar").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(OpenVinoBackend, "version", lambda self: "another")
        with pytest.raises(InputError) as caught:
            synthesize(config, out, store=warm)
    assert "\n" not in str(caught.value)
    digest = stored(warm, "openvino")["text_encoder"][:12]
    assert f"the run was begun with engine {digest} of text_encoder, and here another would go on" in str(caught.value)
    assert builds == []
    assert not (shards / "000001.json").exists()
    assert synthesize(config, out, store=warm).made_now == 2
    assert (shards / "000000.tar").read_bytes() == finished
    assert (shards / "000001.tar").read_bytes() == (compiled / "shards" / "000001.tar").read_bytes()


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_auto_goes_on_with_what_it_began_with(
    run: Synthesizer, path: Path, warm: Path, backend: str, builds: list[str], without_inductor: None
) -> None:
    automatic = under(run, wanting(path, "engines.backend=auto"))
    begun = stored(warm, backend)
    assert compile_run(automatic, begun, print, warm).digests == begun
    assert builds == []


def test_auto_takes_the_fastest_and_says_so(
    run: Synthesizer, path: Path, warm: Path, builds: list[str], without_inductor: None
) -> None:
    said: list[str] = []
    made = compile_run(under(run, wanting(path, "engines.backend=auto")), {}, said.append, warm)
    records = {r.digest: r for r in Store(warm).records()}
    for part, digest in made.digests.items():
        times = {r.digest: r.gate["engine_s"] for r in records.values() if r.key.part == part}
        assert digest == min(times, key=lambda d: float(times[d] or 0))
        key = records[digest].key
        assert f"{part}: {key.backend} fp32, engine {digest[:12]}" in said
    assert builds == []


def test_the_gradient_is_not_built_for_a_run_without_guidance(run: Synthesizer, path: Path, warm: Path) -> None:
    made = compile_run(under(run, wanting(path, "guidance.enabled=false")), {}, print, warm)
    assert list(made.digests) == ["text_encoder", "unet", "decoder", "teacher"]


def test_feature_reuse_wants_the_two_halves_instead_of_the_unet(run: Synthesizer, path: Path) -> None:
    wanted = Parts(under(run, wanting(path, "sampling.reuse_every=2"))).wanted()
    assert wanted == ("text_encoder", "unet_deep", "unet_shallow", "decoder", "energy_gradient", "teacher")


def test_guidance_through_the_unet_needs_eager(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        wanting(path, "guidance.mode=latent")
    said = str(caught.value)
    assert "guidance.mode latent differentiates the UNet, which only engines.backend eager does" in said
    assert ": :" not in said
    wanting(path, "guidance.mode=latent", "engines.backend=eager")


def test_a_flipped_byte_is_refused(run: Synthesizer, shelf: Shelf, builds: list[str]) -> None:
    store = shelf(backend="openvino")
    digest = stored(store.root, "openvino")["decoder"]
    flip(store.folder(digest) / "model.bin")
    with pytest.raises(EngineError) as caught:
        compile_run(run, {}, print, store.root)
    said = one_line(caught.value)
    assert f"{store.folder(digest) / 'model.bin'} is damaged" in said
    assert "run 'prism-fast engines prune'" in said
    assert builds == []


def test_a_named_backend_that_cannot_run_is_refused_before_it_builds(
    run: Synthesizer, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builds: list[str]
) -> None:
    monkeypatch.setattr(TensorRtBackend, "reasons", lambda self, spec: [])
    monkeypatch.setattr(TensorRtBackend, "_missing", lambda self: [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineInputError, match="tensorrt_rtx cannot run text_encoder here: torch sees no CUDA GPU"):
        compile_run(under(run, wanting(path, "engines.backend=tensorrt_rtx")), {}, print, tmp_path / "store")
    assert builds == []


def test_a_part_that_the_model_lacks(run: Synthesizer, path: Path, tmp_path: Path) -> None:
    config = wanting(path, "engines.parts=[unet,text_encoder_2]")
    with pytest.raises(InputError, match=r"engines\.parts names text_encoder_2, which this model does not have"):
        compile_run(under(run, config), {}, print, tmp_path / "store")
