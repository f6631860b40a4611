"""Guided sampling: images a second of naive code, of diffusers' own pipeline, and of ours with each optimisation.

Every variant makes the same plan rows with the same noise, steps, solver and guidance scale, and does the same work:
prompts to committed shards with images and teacher logits. Each runs in a process of its own, so that its peak memory
is its own. Rates are from the end of a warm-up to the last committed shard. Each repeat runs every variant once, one
after the other, and ratios are medians of ratios within a repeat: a machine whose speed drifts drifts for all of them.
Final energies are judged by the eager float32 teacher for all of them, and outside of the time.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from prism_engines.backends.eager import EagerGradientEngine
from prism_kernels import energy

from benchmarks import harness
from benchmarks.naive import DiffusersPipeline, NaiveGuided, decode
from benchmarks.options import Options
from prism_fast.compile.load import compile_run
from prism_fast.compile.probes import real_inputs
from prism_fast.config import LaunchConfig, RunConfig, assign, parse_assignments
from prism_fast.dataset.record import Record
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.sample import Sample
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.guidance.network import LatentClassifier, energy_of
from prism_fast.process import prepare
from prism_fast.prompts.row import PlanRow
from prism_fast.synthesis.calibrate import load_or_calibrate
from prism_fast.synthesis.synthesizer import Made, Synthesizer
from prism_fast.workers.maker import ShardMaker


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
        return with_assignments(config, self.off) != config


#: In the order in which they are added. ``denoised`` off differentiates the UNet, which only eager torch does.
SWITCHES = (
    Switch(
        "denoised",
        ("guidance.mode=latent", "engines.backend=eager", "sampling.reuse_every=1", "guidance.settled_below=null"),
    ),
    Switch("engines", ("engines.backend=eager",)),
    Switch("bf16", ("engines.precision=fp32",)),
    Switch("window", ("guidance.window=[0.0,1.0]", "sampling.guidance_interval=[0.0,1.0]")),
    Switch("every", ("guidance.every=1",)),
    Switch("settled", ("guidance.settled_below=null",)),
    Switch("light_decoder", ("guidance.decoder=full",), ("guidance.decoder=light",)),
    Switch("view_size", ("guidance.view_size=null",), ("guidance.view_size=112",)),
    Switch("interval", ("sampling.guidance_interval=[0.0,1.0]",)),
    Switch("reuse", ("sampling.reuse_every=1",)),
    Switch("pipeline", ("launch.pipeline_depth=0",), ("launch.pipeline_depth=2",)),
    Switch("streams", ("launch.streams=1",), ("launch.streams=2",)),
)
#: Shards of one batch that are timed in each repeat, after the warm-up: one, or for ours two a stream.
TIMED = 12
NAIVE = ("naive_through_unet", "naive_denoised", "diffusers_unguided")
FLOAT32 = ("sampling.dtype=float32",)


def with_assignments(config: RunConfig, assignments: Sequence[str]) -> RunConfig:
    """The same run with other values."""
    return assign(config, parse_assignments(assignments))


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


class Naive:
    """A baseline as a generator: its latents, then everything else in eager torch."""

    def __init__(self, synthesizer: Synthesizer, name: str) -> None:
        self.synthesizer, self.config, self.hashes = synthesizer, synthesizer.config, synthesizer.hashes
        guided = NaiveGuided(synthesizer, name == "naive_through_unet")
        self.latents = (DiffusersPipeline(synthesizer) if name == "diffusers_unguided" else guided).latents

    @property
    def classes(self) -> int:
        return self.synthesizer.classes

    def parts(self, rows: Sequence[PlanRow]) -> list[Sequence[PlanRow]]:
        return self.synthesizer.parts(rows)

    def denoise(self, rows: Sequence[PlanRow]) -> torch.Tensor:
        return self.latents(rows)

    def finish(self, rows: Sequence[PlanRow], sampled: torch.Tensor) -> Made:
        with torch.no_grad():
            pixels = (decode(self.synthesizer, sampled) * 255).round().to(torch.uint8)
        return label(self.synthesizer, rows, pixels)


def label(synthesizer: Synthesizer, rows: Sequence[PlanRow], pixels: torch.Tensor) -> Made:
    """Samples of finished images with the eager teacher's logits."""
    logits, pixels = synthesizer.teacher.logits(pixels, len(rows)).cpu(), pixels.cpu()
    made = (Sample(row.index, pixels[i], row.label, logits[i], asdict(row)) for i, row in enumerate(rows))
    return Made(tuple(made), ())


def _seconds(records: Iterable[Record], warm: int) -> tuple[float, float]:
    """Seconds until the first ``warm`` shards are committed, and from there to the last one."""
    start = time.perf_counter()
    at = [time.perf_counter() - start for _ in records]
    return at[warm - 1], at[-1] - at[warm - 1]


def run_variant(config: RunConfig, name: str, store: Path | None, out: Path) -> harness.Row:
    """Make the shards of one variant in ``out``; those of the warm-up are not counted."""
    warm = 1 if name in NAIVE else 2 * config.launch.streams
    directory = RunDirectory(out)
    directory.claim(config)
    # The baselines are float32, whatever ours is computed in.
    synthesizer = Synthesizer.load(with_assignments(config, FLOAT32) if name in NAIVE else config)
    cosine, shards = None, range(warm + TIMED)
    if name in NAIVE:
        maker, start_s = ShardMaker(Naive(synthesizer, name), directory), harness.process_age_s()
        first, timed = _seconds(maker.run(shards, LaunchConfig()), warm)
    else:
        compiled = compile_run(synthesizer, {}, harness.log, store)
        compiled.synthesizer.margins = load_or_calibrate(compiled.synthesizer, out / "margins.json")
        maker = ShardMaker(compiled.synthesizer, directory, compiled.digests)
        start_s = harness.process_age_s()
        first, timed = _seconds(maker.run(shards, config.launch), warm)
        cosine = gradient_cosine(synthesizer, compiled.synthesizer)
    return {
        "variant": name,
        "gradient_cosine": cosine,
        "start_s": start_s,
        "first_s": first,
        "seconds": timed,
        "peak_rss_bytes": harness.peak_rss_bytes(),
        **_quality(synthesizer, out, config),
    }


def gradient_cosine(synthesizer: Synthesizer, compiled: Synthesizer) -> float | None:
    """Mean cosine of a variant's energy gradient to the eager float32 one through full decoder and full view.

    Both see the same denoised latents, from the middle of an eager synthesizer, and the same crops.
    """
    guidance, sampler = synthesizer.config.guidance, synthesizer.sampler
    if not guidance.enabled:
        return None
    latents, labels = real_inputs(synthesizer, "energy_gradient")[:2]
    boxes = sampler.boxes(range(len(latents)), 0).to(latents.device)
    size = synthesizer.teacher.config.image_size
    exact = EagerGradientEngine(LatentClassifier(synthesizer.decoder, synthesizer.teacher, size), energy_of(guidance))
    wanted, found = (e.run(latents, labels, boxes)[1].flatten(1) for e in (exact, compiled.engines.energy_gradient))
    return float(torch.nn.functional.cosine_similarity(wanted, found).mean())


def _quality(synthesizer: Synthesizer, out: Path, config: RunConfig) -> harness.Row:
    samples = list(
        islice(ShardSet.discover(out).samples(), (1 + TIMED) * config.synthesis.shard_size)
    )  # of all variants
    images = torch.stack([s.image for s in samples])
    labels = torch.tensor([s.label for s in samples])
    logits = torch.cat([synthesizer.teacher.logits(part.to(synthesizer.device)).cpu() for part in images.split(64)])
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


def _spawn(variant: Variant, config: RunConfig, store: Path | None, out: Path) -> harness.Row:
    changed = with_assignments(config, variant.assignments)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    document = out / "config.json"
    document.write_text(changed.model_dump_json())
    arguments = [variant.name, str(document), str(out / "run"), *([str(store)] if store else [])]
    start = time.monotonic()
    row: harness.Row = harness.run_apart(f"variant {variant.name}", "benchmarks.guided", *arguments)
    rate = TIMED * config.synthesis.shard_size / row["seconds"]
    harness.log(
        f"{variant.name}: {rate:.2f} images/s, energy {row['final_energy_mean']:.2f}, {time.monotonic() - start:.0f} s"
    )
    return {**row, "assignments": list(variant.assignments)}


def bench(config: RunConfig, options: Options) -> list[harness.Row]:
    """Every variant's row, on shards of one batch."""
    size = config.sampling.fixed_batch_size
    most = 2 * max(config.launch.streams, 2) + TIMED
    assignments = [f"synthesis.images={most * size}", f"synthesis.shard_size={size}"]
    sized = with_assignments(config, [*assignments, f"sampling.device={options.device}"])
    chosen = [v for v in variants(sized) if not options.only or v.name in options.only]
    with tempfile.TemporaryDirectory(prefix="prism-bench-") as scratch:
        repeats = [
            [_spawn(v, sized, options.store, Path(scratch) / v.name) for v in chosen] for _ in range(options.repeats)
        ]
        images = {v.name: np.load(Path(scratch) / v.name / "run" / "images.npy").astype(np.float32) for v in chosen}
    rows = [_joined(list(found), size) for found in zip(*repeats, strict=True)]
    seconds = {row["variant"]: row["seconds"] for row in rows}
    for row in rows:
        for key, baseline in (("naive", NAIVE[0]), ("diffusers", NAIVE[2]), ("unguided", "ours_unguided")):
            row[f"ratio_to_{key}"] = _ratio(seconds[baseline], row["seconds"]) if baseline in seconds else None
        for key, baseline in (("through_unet", NAIVE[0]), ("denoised", NAIVE[1])):
            both = baseline in images and row["variant"] in images
            row[f"difference_to_{key}"] = (
                float(np.abs(images[row["variant"]] - images[baseline]).mean()) if both else None
            )
    return rows


def _joined(repeats: list[harness.Row], size: int) -> harness.Row:
    """One variant's repeats as a row: they make the same images, so only the seconds differ."""
    seconds = [row["seconds"] for row in repeats]
    timing = harness.percentiles(seconds, repeats[0]["first_s"])
    start_s = statistics.median(row["start_s"] for row in repeats)
    return {**repeats[0], "start_s": start_s, "seconds": seconds, "images_per_s": timing.rate(TIMED * size)}


def _ratio(baseline: Sequence[float], seconds: Sequence[float]) -> float:
    return statistics.median(base / own for base, own in zip(baseline, seconds, strict=True))


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


def _main(name: str, document: str, out: str, store: str | None = None) -> None:
    prepare()
    config = RunConfig.model_validate_json(Path(document).read_text())
    print(json.dumps(run_variant(config, name, Path(store) if store else None, Path(out))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
