"""The report in a real browser: every image decodes, nothing overflows a telephone, something is painted.

Chromium does not open windows narrower than 500 px, so the telephone is an iframe of 390 px.
"""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prism_fast.evaluation.report import build_report
from tests.evaluation.sample_report import sample_report

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
_WRAPPER = """<!doctype html><body style="margin:0">
<iframe style="border:0;width:390px;height:800px" srcdoc="{page}"></iframe>
<script>addEventListener("load", () => Object.assign(document.documentElement.dataset,
  document.querySelector("iframe").contentDocument.documentElement.dataset))</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("neither chromium nor google-chrome is installed")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(sample_report(), tmp_path_factory.mktemp("report") / "report.html")


def _run(browser: str, page: Path, *flags: str) -> str:
    command = [browser, *_FLAGS, f"--user-data-dir={page.parent / 'profile'}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return done.stdout.decode()


def _measured(dom: str) -> dict[str, int]:
    """The data attributes that the page's script wrote on <html>."""
    root = re.search(r"<html[^>]*>", dom)
    assert root is not None
    return {name: int(value) for name, value in re.findall(r'data-([a-z-]+)="(\d+)"', root[0])}


def _check_layout(measured: dict[str, int], width: int) -> None:
    assert measured["client-width"] == width
    assert measured["scroll-width"] == width
    assert measured["clipped"] == 0
    assert measured["images"] == measured["decoded"] == 24 + 2 * 8 + 16 * 8


def test_desktop(browser: str, page: Path) -> None:
    dom = _run(browser, page, "--window-size=1280,900", "--dump-dom")
    _check_layout(_measured(dom), 1280)
    for tile in ("accuracy", "speed", "energy", "prdc"):
        assert f'id="tile-{tile}"' in dom
    assert dom.count("<svg") == 4


def test_telephone(browser: str, page: Path) -> None:
    wrapper = page.parent / "telephone.html"
    wrapper.write_text(_WRAPPER.format(page=html.escape(page.read_text())))
    _check_layout(_measured(_run(browser, wrapper, "--window-size=600,900", "--dump-dom")), 390)


@pytest.mark.parametrize(("scheme", "dark"), [("1", False), ("0", True)])
def test_screenshot_follows_the_color_scheme(browser: str, page: Path, scheme: str, dark: bool) -> None:
    shot = page.parent / f"shot-{scheme}.png"
    setting = f"--blink-settings=preferredColorScheme={scheme}"
    _run(browser, page, "--window-size=1280,900", setting, f"--screenshot={shot}")
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert pixels.shape == (900, 1280, 3)
    assert (pixels[2, 2].mean() < 60) == dark
    # Not blank: the hero's pictures bring many colours.
    assert len(np.unique(pixels.reshape(-1, 3) // 16, axis=0)) > 100
