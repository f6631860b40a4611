"""Writing and checking shards: encode, tar, hash, fsync and rename; then `verify`, which reads every byte. Images are
random noise of the configuration's size. The last row is a real guided run: `writing_share` is the part of its wall
time in which shards are closed (images still being encoded are waited for, then all is hashed, written and committed),
beside sampling; `writing_busy_share` is what of that its thread worked, encoding in other threads left out.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from benchmarks import harness
from benchmarks.options import Options
from benchmarks.writer import of_guided_run
from prism_fast.config import RunConfig
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.sample import Sample
from prism_fast.dataset.writer import commit_shard, make_record, tar_bytes
from prism_fast.operations.verify import verify

COLUMNS = (
    "work",
    "image_format",
    "images_per_s.p20",
    "images_per_s.p50",
    "images_per_s.p80",
    "mb_per_s",
    "writing_share",
    "writing_busy_share",
)
_SIZE = 256


def write_random(config: RunConfig, out: Path, shards: int, image_format: str) -> tuple[list[float], int]:
    """A run of random images; seconds of each shard, and bytes in all."""
    sizes = {"images": shards * _SIZE, "shard_size": _SIZE, "image_format": image_format}
    config = config.model_copy(update={"synthesis": config.synthesis.model_copy(update=sizes)})
    directory = RunDirectory(out)
    directory.claim(config)
    generator = torch.Generator().manual_seed(0)
    size = (3, config.sampling.height, config.sampling.width)
    seconds, written = [], 0
    for shard in range(shards):
        images = torch.randint(0, 256, (_SIZE, *size), generator=generator, dtype=torch.uint8)
        rows = range(shard * _SIZE, (shard + 1) * _SIZE)
        samples = [Sample(i, images[i % _SIZE], i % 16, torch.zeros(16), {"index": i, "label": i % 16}) for i in rows]
        start = time.perf_counter()
        tar, index = tar_bytes(samples, image_format, config.synthesis.quality)
        record = make_record(
            shard,
            samples,
            tar,
            index,
            run_hash=config.run_hash(),
            models={},
            classes=16,
            image_ext=image_format,
            first_index=rows.start,
            planned=_SIZE,
        )
        commit_shard(directory.shards, record, tar, index)
        seconds.append(time.perf_counter() - start)
        written += len(tar)
    return seconds, written


def bench(config: RunConfig, options: Options) -> list[harness.Row]:
    """A row for writing and one for checking, each format, then a guided run's; ``options.only`` names these."""
    rows = []
    for image_format in (f for f in ("png", "jpg", "webp") if not options.only or f in options.only):
        with tempfile.TemporaryDirectory(prefix="prism-bench-") as scratch:
            seconds, written = write_random(config, Path(scratch), options.repeats + 1, image_format)
            write = harness.percentiles(seconds[1:], seconds[0])
            check = harness.measure(partial(verify, Path(scratch)), options.repeats)
            shards = options.repeats + 1
            rows += [
                _row("write", image_format, write.rate(_SIZE), written / shards / write.p50),
                _row("verify", image_format, check.rate(shards * _SIZE), written / check.p50),
            ]
    if not options.only or "guided" in options.only:
        rows.append(of_guided_run(config, options))
    return rows


def _row(work: str, image_format: str, rate: dict[str, float], bytes_per_s: float) -> harness.Row:
    return {"work": work, "image_format": image_format, "images_per_s": rate, "mb_per_s": bytes_per_s / 1e6}
