"""The public Python API: its names, what importing it costs, and the way from a configuration to a report."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import diffusers.utils.logging as diffusers_logging
import pytest

import prism_fast
from prism_fast.dataset.sample import Sample
from prism_fast.errors import ConfigError, InputError
from tests.cli.conftest import restored
from tests.tiny import write_config

NAMES = [
    "ShardSet",
    "__version__",
    "build_engines",
    "check_gpu",
    "check_prompts",
    "compress",
    "distill",
    "evaluate",
    "export_student",
    "extend",
    "label_views",
    "load_config",
    "prompt_stats",
    "report",
    "select",
    "synthesize",
    "verify",
    "write_bank",
]
HEAVY = ("torch", "numpy", "pydantic", "yaml", "diffusers", "transformers", "timm", "pyarrow", "typer")


def test_the_names_are_these() -> None:
    assert prism_fast.__all__ == NAMES
    assert set(NAMES) <= set(dir(prism_fast))
    assert prism_fast.__version__ == version("prism-fast")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        prism_fast.nothing  # noqa: B018


def test_importing_it_imports_nothing_heavy() -> None:
    program = f"import sys, prism_fast; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_name_stays_itself_whatever_room_was_imported_before() -> None:
    """A room of the same name would take the function's place as soon as it is imported."""
    rooms = [path.name for path in Path(prism_fast.__file__).parent.iterdir() if path.is_dir()]
    modules = [path.stem for path in Path(prism_fast.__file__).parent.glob("*.py")]
    assert set(NAMES) & {*rooms, *modules} == set()


def test_from_a_configuration_to_a_report(tmp_path: Path) -> None:
    recipe = {"student": "test_resnet", "image_size": 32, "steps": 4, "batch_size": 4, "warmup_steps": 1}
    path = write_config(tmp_path, distill={**recipe, "loader": "torch"})
    run, seen = tmp_path / "run", list[tuple[int, int, float]]()
    with restored():
        config = prism_fast.load_config(path, ["synthesis.images=8"])
        made = prism_fast.synthesize(config, str(run), progress=lambda *told: seen.append(told))
        assert diffusers_logging.get_verbosity() == diffusers_logging.ERROR
        assert (made.images, [told[:2] for told in seen]) == (8, [(4, 8), (8, 8)])
        assert prism_fast.verify(run).problems == ()
        assert len(list(prism_fast.ShardSet.discover(run).samples())) == 8
        chosen = prism_fast.select(run, keep=1.0, quotas={"cat": 1})
        assert chosen.accepted == 8 - 2  # three of "cat", of which one is left
        (result,) = prism_fast.distill(config, run, tmp_path / "student")
        (folder := tmp_path / "pictures").mkdir()
        for sample in prism_fast.ShardSet.discover(run).samples():
            save_picture(folder / str(sample.label) / f"{sample.index}.png", sample)
        (score,) = prism_fast.evaluate(result.student, folder)
        assert (score.n, 0 <= score.top1 <= 1) == (8, True)
        page = prism_fast.report(run, picture=tmp_path / "grid.png")
    assert page == run / "report.html"
    assert "<html" in page.read_text()
    assert (tmp_path / "grid.png").is_file()


def save_picture(path: Path, sample: Sample) -> None:
    from PIL import Image

    path.parent.mkdir(exist_ok=True)
    Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(path)


def test_engines_are_built_into_the_store_that_is_given(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    config = prism_fast.load_config(write_config(tmp_path))
    with restored():
        found = prism_fast.build_engines(
            config, backend="openvino", precision="fp32", parts=["decoder"], store=tmp_path / "store"
        )
    ((built,), refused) = found.built, found.refused
    assert (built.part, built.backend, refused) == ("decoder", "openvino", [])
    assert (tmp_path / "store" / built.key / "engine.json").is_file()


def test_errors_are_ours(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Extra inputs are not permitted"):
        prism_fast.load_config("minis-emoji", ["sampling.nothing=1"])
    with pytest.raises(InputError, match="is not a run directory"):
        prism_fast.verify(tmp_path)
    with pytest.raises(InputError, match="is in an object store, but a local path is needed here"):
        prism_fast.report("s3://bucket/run")


def test_a_configuration_is_loaded_by_path_or_name(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    assert prism_fast.load_config(path) == prism_fast.load_config(str(path))
    assert json.loads(prism_fast.load_config("minis-emoji").model_dump_json())["name"] == "minis-emoji"
