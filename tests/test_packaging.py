"""What ships, what the command line loads, and what the error tree promises."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import prism_engines.errors
import prism_kernels._errors
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from prism_fast import errors

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

LIST_HEAVY = """
import sys
from prism_fast.cli.main import main
sys.argv = ["prism-fast", "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {"torch", "diffusers", "transformers", "timm", "nvidia", "pyarrow", "sklearn", "matplotlib", "triton",
         "prometheus_client", "pythonjsonlogger"}
print("HEAVY", sorted(heavy & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names in a wheel built here, with no isolated environment and so without the network."""
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    folder = tmp_path_factory.mktemp("dist")
    (path,) = builder.build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


@pytest.mark.parametrize("package", PACKAGES)
def test_wheel_holds_every_committed_file(wheel: list[str], package: str) -> None:
    listed = subprocess.run(["git", "ls-files", package], cwd=ROOT, capture_output=True, text=True)
    committed = [line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]
    if listed.returncode != 0 or not committed:
        pytest.skip("not a git checkout")
    parent = Path(package).parent
    missing = [name for name in committed if str(Path(name).relative_to(parent)) not in wheel]
    assert missing == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_marked_as_typed(wheel: list[str], package: str) -> None:
    assert f"{Path(package).name}/py.typed" in wheel


def test_wheel_carries_data_and_licences(wheel: list[str]) -> None:
    assert "prism_fast/labels/emoji.yaml" in wheel
    assert any(name.startswith("prism_fast/configs/") and name.endswith(".yaml") for name in wheel)
    assert {Path(name).name for name in wheel if "/licenses/" in name} == {"LICENSE", "NOTICE"}


def test_wheel_holds_nothing_else(wheel: list[str]) -> None:
    allowed = {Path(package).name for package in PACKAGES}
    assert {name.split("/")[0] for name in wheel if ".dist-info/" not in name} == allowed
    assert [name for name in wheel if "__pycache__" in name or ".tmp-" in name] == []


def test_every_direct_dependency_is_pinned_inside_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {canonicalize_name(n): v for n, v in (line.split("==") for line in lines if "==" in line)}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = PROJECT["project"]["dependencies"] + [r for name in extras if name != "xformers" for r in extras[name]]
    requirements = [Requirement(text) for text in wanted]
    assert [r.name for r in requirements if canonicalize_name(r.name) not in pins] == []
    assert [str(r) for r in requirements if pins[canonicalize_name(r.name)] not in r.specifier] == []


def test_help_lists_the_commands_and_imports_nothing_heavy() -> None:
    result = subprocess.run([sys.executable, "-c", LIST_HEAVY], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "HEAVY []" in result.stdout
    shown = set(re.findall(r"\b[a-z]+\b", result.stdout))
    commands = {
        "prompts",
        "synthesize",
        "verify",
        "distill",
        "evaluate",
        "report",
        "demo",
        "doctor",
        "configs",
        "minis",
    }
    assert commands - shown == set()


def _drawn_tree() -> dict[str, tuple[str | None, int]]:
    """Read class -> (parent, exit code) from the drawing; a class without a code inherits its parent's."""
    drawn: dict[str, tuple[str | None, int]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│ ├└─]*)([A-Z]\w+Error)(?:\s+(\d)\b)?", line)
        if match:
            depth = len(match[1]) // 4
            parent = path[depth - 1] if depth else None
            path[depth:] = [match[2]]
            code = int(match[3]) if match[3] else drawn[parent][1] if parent else errors.PrismError.exit_code
            drawn[match[2]] = (parent, code)
    return drawn


def test_the_error_tree_is_drawn_as_it_is() -> None:
    """Those of engines and kernels included; whoever has two parents stands below the one that gives its exit code."""
    real = {}
    for module in (errors, prism_engines.errors, prism_kernels._errors):
        for name, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, errors.PrismError):
                parent = next((b for b in cls.__bases__ if issubclass(b, errors.InputError)), cls.__base__)
                assert parent is not None
                real[name] = (None if cls is errors.PrismError else parent.__name__, cls.exit_code)
    assert _drawn_tree() == real


def test_notice_credits_every_source_of_pictures() -> None:
    from prism_fast.minis.sources import NAMES, STYLES

    lines = (ROOT / "NOTICE").read_text().splitlines()
    for source in (*STYLES, NAMES):
        facts = (f"{source.package} {source.version}", source.author, source.licence, source.url)
        assert any(all(fact in line for fact in facts) for line in lines), source
