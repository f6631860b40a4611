from pathlib import Path

import pytest

from prism_fast.compile.build import Built, Refused
from prism_fast.compile.page import BEGIN, END, as_markdown, write_table
from prism_fast.errors import InputError

RUNS = Built("unet", "openvino", "bf16", "k", 47_500_000, 7.56, 1.1e-2, 0.99993, 3.33, 100, "openvino")
STORED = Built("unet", "tensorrt_rtx", "fp16", "k", 1_000_000, 3.0, 1e-3, 1.0, None, None, "onnxruntime, fp16")


def test_rows_say_what_was_measured_and_what_was_refused() -> None:
    rows = as_markdown([RUNS, STORED], [Refused("unet", "tensorrt", "no GPU")]).splitlines()[2:]
    assert rows[0] == "| unet | openvino | bf16 | 47.5 | 7.6 | 1.1e-02 | 0.99993 | 3.33 | openvino |"
    assert "| cannot run here | onnxruntime, fp16 |" in rows[1]
    assert "no: no GPU" in rows[2]
    assert len({row.count("|") for row in rows}) == 1


def test_only_what_is_between_the_markers_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_table(page, "new\n")
    assert page.read_text() == f"before\n{BEGIN}\nnew\n{END}\nafter\n"


@pytest.mark.parametrize("text", [None, "no markers", BEGIN])
def test_a_page_without_markers_is_refused(tmp_path: Path, text: str | None) -> None:
    page = tmp_path / "page.md"
    if text is not None:
        page.write_text(text)
    with pytest.raises(InputError, match="must be a page that holds the lines"):
        write_table(page, "new\n")
