from pathlib import Path

import pytest
import torch
from PIL import Image

from prism_fast.dataset.sample import Sample
from prism_fast.errors import InputError
from prism_fast.evaluation.picture import save_class_grid


def _sample(index: int, label: int, level: int) -> Sample:
    return Sample(index, torch.full((3, 4, 4), level, dtype=torch.uint8), label, torch.zeros(2), {})


def test_one_column_a_class_in_the_order_of_the_plan(tmp_path: Path) -> None:
    samples = [_sample(0, 0, 10), _sample(1, 1, 20), _sample(2, 0, 30), _sample(3, 1, 40)]
    picture = Image.open(save_class_grid(samples, 2, tmp_path / "new" / "grid.png"))
    corners = [(0, 0), (6, 0), (0, 6), (6, 6)]
    assert [picture.getpixel(at)[0] for at in corners] == [10, 20, 30, 40]  # type: ignore[index]


def test_a_path_below_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write the picture .*file.*choose another path"):
        save_class_grid([_sample(0, 0, 1)], 1, tmp_path / "file" / "grid.png")
