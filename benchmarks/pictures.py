"""A folder of noise pictures as large as ImageNet's validation set: 1,000 class folders named by WordNet id.

    python -m benchmarks.pictures runs/bench/noise --pictures 50000

A few hundred pictures differ, the others are hard links to them: 50,000 take a few seconds and 10 MB.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from PIL import Image
from timm.data import ImageNetInfo

_DIFFERENT = 256


def write_noise(out: Path, pictures: int, size: int = 224) -> Path:
    """An ImageFolder of JPEG pictures, the classes taking turns; every class has its folder.

    Raises:
        FileExistsError: ``out`` holds some already.
    """
    folders = [out / name for name in ImageNetInfo("imagenet-1k").label_names()]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    rng, written = np.random.default_rng(0), list[Path]()
    for number in range(pictures):
        path = folders[number % len(folders)] / f"{number:08d}.JPEG"
        if number < _DIFFERENT:
            with path.open("xb") as file:
                Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(file, "JPEG")
            written.append(path)
        else:
            os.link(written[number % _DIFFERENT], path)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pictures", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=224)
    given = parser.parse_args()
    write_noise(given.out, given.pictures, given.size)
