"""Guided sampling: images a second of naive code, of diffusers' own pipeline, and of ours with each optimisation.

Every variant makes the same plan rows with the same noise, steps, solver and guidance scale, and does the same work:
prompts to committed shards with images and teacher logits. Each runs in a process of its own, so that its peak memory
is its own. Final energies are judged by the eager float32 teacher for all of them, and outside of the time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from prism_engines.backends.eager import EagerGradientEngine
from prism_kernels import energy

from benchmarks import harness
from benchmarks.naive import DiffusersPipeline, NaiveGuided, decode
from benchmarks.options import Options
from prism_fast.cli.common import prepare
from prism_fast.compile.load import compile_run
from prism_fast.compile.probes import real_inputs
from prism_fast.config import RunConfig, load_config
from prism_fast.guidance.network import LatentClassifier, energy_of
from prism_fast.synthesis.calibrate import load_or_calibrate
from prism_fast.synthesis.maker import ShardMaker
from prism_fast.synthesis.reader import read_samples
from prism_fast.synthesis.rundir import RunDirectory
from prism_fast.synthesis.sampler import Made, Row, Synthesizer


@dataclass(frozen=True)
class Switch:
    """One optimisation: what turns it off, and what turns it on where the configuration does not use it.

    A switch that the configuration uses is turned on to the configuration's own value.
    """

    name: str
    off: tuple[str, ...]
    on: tuple[str, ...] = ()

    def differs(self, config: RunConfig) -> bool:
        """Whether the configuration uses it."""
        return load_config_of(config, self.off) != config


#: In the order in which they are added. ``denoised`` off differentiates the UNet, which only eager torch does.
SWITCHES = (
    Switch("denoised", ("guidance.mode=latent", "engines.backend=eager", "sampling.reuse_every=1")),
    Switch("engines", ("engines.backend=eager",)),
    Switch("bf16", ("engines.precision=fp32",)),
    Switch("window", ("guidance.window=[0.0,1.0]", "sampling.guidance_interval=[0.0,1.0]")),
    Switch("every", ("guidance.every=1",)),
    Switch("light_decoder", ("guidance.decoder=full",), ("guidance.decoder=light",)),
    Switch("view_size", ("guidance.view_size=null",), ("guidance.view_size=96",)),
    Switch("interval", ("sampling.guidance_interval=[0.0,1.0]",)),
    Switch("reuse", ("sampling.reuse_every=1",)),
    Switch("pipeline", ("launch.pipeline_depth=0",), ("launch.pipeline_depth=2",)),
)
NAIVE = ("naive_through_unet", "naive_denoised", "diffusers_unguided")


def load_config_of(config: RunConfig, assignments: Sequence[str]) -> RunConfig:
    """The same run with other values."""
    data = config.model_dump(mode="json")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(data, file)  # JSON is YAML
        file.flush()
        return load_config(file.name, tuple(assignments))


@dataclass(frozen=True)
class Variant:
    """A row of the table."""

    name: str
    assignments: tuple[str, ...] = ()


def variants(config: RunConfig) -> list[Variant]:
    """Baselines, ours without energy guidance, each switch added in turn, all of them, each removed alone.

    Last come switches that the configuration leaves off, each added alone.
    """
    used = [switch for switch in SWITCHES if switch.differs(config)]
    rows = [Variant(name) for name in NAIVE]
    rows.append(Variant("ours_unguided", ("guidance.enabled=false",)))
    for count in range(len(used)):
        off = [a for switch in reversed(used[count:]) for a in switch.off]
        rows.append(Variant(f"plus_{used[count - 1].name}" if count else "reference", tuple(off)))
    rows.append(Variant("ours"))
    rows += [Variant(f"without_{switch.name}", switch.off) for switch in used]
    return rows + [Variant(f"with_{s.name}", s.on) for s in SWITCHES if s.on and s not in used]


class NaiveShards:
    """Shards of a baseline: its latents, then everything else in eager torch and the same files."""

    def __init__(self, run: Synthesizer, directory: RunDirectory, name: str) -> None:
        self.run, self.maker = run, ShardMaker(run, directory)
        guided = NaiveGuided(run, name == "naive_through_unet")
        self.latents = (DiffusersPipeline(run) if name == "diffusers_unguided" else guided).latents

    def seconds(self, shards: range) -> list[float]:
        """Seconds of each shard."""
        self.maker.denoise = self._denoise  # type: ignore[method-assign]
        self.maker.finish = self._finish  # type: ignore[method-assign]
        return [record.seconds for record in self.maker.run(shards, 0)]

    def _denoise(self, work: Any) -> Any:
        return work, self.latents(work.rows)

    def _finish(self, item: Any) -> Any:
        work, latents = item
        with torch.no_grad():
            pixels = (decode(self.run, latents) * 255).round().to(torch.uint8)
        return work, label(self.run, work.rows, pixels)


def label(run: Synthesizer, rows: Sequence[Row], pixels: torch.Tensor) -> Made:
    """Samples of finished images with the eager teacher's logits."""
    from prism_fast.synthesis.shards import Sample

    logits = run.teacher.logits(pixels, len(rows))
    made = (Sample(row["index"], pixels[i], row["label"], logits[i], dict(row)) for i, row in enumerate(rows))
    return Made(tuple(made), ())


def run_variant(config: RunConfig, name: str, shards: int, store: Path | None, out: Path) -> harness.Row:
    """Make the shards of one variant in ``out``; the first one is not counted."""
    directory = RunDirectory(out)
    directory.claim(config)
    run = Synthesizer.load(config)
    cosine = None
    if name in NAIVE:
        seconds = NaiveShards(run, directory, name).seconds(range(shards))
    else:
        compiled = compile_run(run, {}, harness.log, store)
        compiled.synthesizer.margins = load_or_calibrate(compiled.synthesizer, out / "margins.json")
        maker = ShardMaker(compiled.synthesizer, directory, compiled.digests)
        seconds = [record.seconds for record in maker.run(range(shards), config.launch.pipeline_depth)]
        cosine = gradient_cosine(run, compiled.synthesizer)
    timing = harness.percentiles(seconds[1:], seconds[0])
    return {
        "variant": name,
        "gradient_cosine": cosine,
        "images_per_s": timing.rate(config.synthesis.shard_size),
        "seconds": seconds,
        "peak_rss_bytes": harness.peak_rss_bytes(),
        **_quality(run, out, config),
    }


def gradient_cosine(run: Synthesizer, compiled: Synthesizer) -> float | None:
    """Mean cosine of a variant's energy gradient to the eager float32 one through full decoder and full view.

    Both see the same denoised latents, from the middle of an eager run, and the same crops.
    """
    guidance, sampler = run.config.guidance, run.sampler
    if not guidance.enabled:
        return None
    latents, labels = real_inputs(run, "energy_gradient")[:2]
    boxes = sampler.boxes(range(len(latents)), 0).to(latents.device)
    size = run.teacher.config.image_size
    exact = EagerGradientEngine(LatentClassifier(run.decoder, run.teacher, size), energy_of(guidance))
    gradients = [engine.run(latents, labels, boxes)[1] for engine in (exact, compiled.engines.energy_gradient)]
    return float(torch.nn.functional.cosine_similarity(*(g.flatten(1) for g in gradients)).mean())


def _quality(run: Synthesizer, out: Path, config: RunConfig) -> harness.Row:
    samples = read_samples(out)
    images = torch.stack([s.image for s in samples])
    labels = torch.tensor([s.label for s in samples])
    logits = run.teacher.logits(images)
    final, _ = energy_of(config.guidance)(logits, labels)
    free, _ = energy(logits, labels, 0.0, -1.0, 1.0)
    np.save(out / "images.npy", images.numpy())
    return {
        "images": len(samples),
        "final_energy_mean": float(final.mean()),
        "final_energy_std": float(final.std()),
        "free_energy_mean": float(free.mean()),
        "agreement": float((logits.argmax(1) == labels).float().mean()),
    }


def _spawn(variant: Variant, config: RunConfig, shards: int, store: Path | None, out: Path) -> harness.Row:
    changed = load_config_of(config, variant.assignments)
    out.mkdir(parents=True)
    document = out / "config.json"
    document.write_text(json.dumps(changed.model_dump(mode="json")))
    command = [sys.executable, "-m", "benchmarks.guided", variant.name, str(document), str(shards), str(out / "run")]
    start = time.monotonic()
    done = subprocess.run(
        [*command, *([str(store)] if store else [])],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"variant {variant.name} failed with exit code {done.returncode}; its message is above")
    row: harness.Row = json.loads(done.stdout.splitlines()[-1])
    rate = row["images_per_s"]["p50"]
    harness.log(
        f"{variant.name}: {rate:.2f} images/s, energy {row['final_energy_mean']:.2f}, {time.monotonic() - start:.0f} s"
    )
    return {**row, "assignments": list(variant.assignments)}


def bench(config: RunConfig, options: Options) -> list[harness.Row]:
    """Every variant's row, on shards of one batch."""
    shards, size = options.repeats + 1, config.sampling.batch_size
    assignments = [f"synthesis.images={shards * size}", f"synthesis.shard_size={size}"]
    sized = load_config_of(config, [*assignments, f"sampling.device={options.device}"])
    chosen = [v for v in variants(sized) if not options.only or v.name in options.only]
    with tempfile.TemporaryDirectory(prefix="prism-bench-") as scratch:
        rows = [_spawn(v, sized, shards, options.store, Path(scratch) / v.name) for v in chosen]
        images = {v.name: np.load(Path(scratch) / v.name / "run" / "images.npy").astype(np.float32) for v in chosen}
    base = {name: row["images_per_s"]["p50"] for name, row in zip((v.name for v in chosen), rows, strict=True)}
    for row in rows:
        rate = row["images_per_s"]["p50"]
        for key, baseline in (("naive", NAIVE[0]), ("diffusers", NAIVE[2]), ("unguided", "ours_unguided")):
            row[f"ratio_to_{key}"] = rate / base[baseline] if baseline in base else None
        for key, baseline in (("through_unet", NAIVE[0]), ("denoised", NAIVE[1])):
            both = baseline in images and row["variant"] in images
            row[f"difference_to_{key}"] = (
                float(np.abs(images[row["variant"]] - images[baseline]).mean()) if both else None
            )
    return rows


COLUMNS = (
    "variant",
    "images_per_s.p20",
    "images_per_s.p50",
    "images_per_s.p80",
    "ratio_to_naive",
    "ratio_to_diffusers",
    "ratio_to_unguided",
    "final_energy_mean",
    "final_energy_std",
    "free_energy_mean",
    "agreement",
    "gradient_cosine",
    "difference_to_through_unet",
    "difference_to_denoised",
    "peak_rss_bytes",
)


def _main(name: str, document: str, shards: str, out: str, store: str | None = None) -> None:
    prepare()
    config = load_config(document)
    print(json.dumps(run_variant(config, name, int(shards), Path(store) if store else None, Path(out))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
