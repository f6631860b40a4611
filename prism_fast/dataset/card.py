"""The dataset card: what the images are, and everything they came from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from huggingface_hub import DatasetCardData, metadata_load

from prism_fast.config import RunConfig
from prism_fast.dataset.record import Record
from prism_fast.errors import DataError
from prism_fast.models.bundled import assets, resolve

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10**7, "1M<n<10M"))
_UNSTATED = "not stated in its directory"


def _front_matter(config: RunConfig, rows: int, files: str) -> str:
    data = DatasetCardData(
        pretty_name=config.name,
        license="other",
        task_categories=["image-classification"],
        size_categories=[next((name for limit, name in _SIZES if rows < limit), "n>10M")],
        tags=["synthetic", "knowledge-distillation", *(["webdataset"] if files.endswith(".tar") else [])],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": files}]}],
    )
    return f"---\n{data.to_yaml()}\n---\n"


def stated_license(path: Path) -> str:
    """The licence that a model's own card names, else the first line of its licence file."""
    folder = path if path.is_dir() else path.parent
    if folder.is_relative_to(assets()):
        return "see the NOTICE of prism-fast"
    card = folder / "README.md"
    if card.is_file() and (found := _license_of_card(card)):
        return found
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md"):
        if (folder / name).is_file():
            lines = (folder / name).read_text(encoding="utf-8", errors="replace").split("\n")
            return next((line.strip() for line in lines if line.strip()), _UNSTATED)
    return _UNSTATED


def _license_of_card(card: Path) -> str | None:
    try:
        data = metadata_load(card) or {}
    except (ValueError, yaml.YAMLError):  # somebody else's file
        return None
    return str(data["license"]) if data.get("license") else None


def _license(config: RunConfig, part: str) -> str:
    try:
        path = Path(resolve(getattr(config.models, part, None) or part, part))
    except DataError:  # the models may have gone since
        return _UNSTATED
    return stated_license(path) if path.exists() else _UNSTATED


def _models(config: RunConfig, hashes: dict[str, str]) -> list[str]:
    head = ["| model | name | licence | SHA-256 |", "|---|---|---|---|"]
    return head + [
        f"| {part} | {Path(getattr(config.models, part, None) or part).name} | {_license(config, part)} | `{digest}` |"
        for part, digest in hashes.items()
    ]


def _settings(config: RunConfig) -> list[str]:
    sampling, guidance = config.sampling, config.guidance
    lines = [
        f"- Sampling: {sampling.solver}, {sampling.steps} steps, guidance scale {sampling.guidance_scale}, "
        f"{sampling.width}×{sampling.height} pixels, deep features every {sampling.reuse_every} steps",
    ]
    if config.synthesis.store_size:
        lines.append("- Stored at {1}×{0} pixels".format(*config.stored_size))
    if not guidance.enabled:
        return [*lines, "- Energy guidance: none"]
    window = f"steps {guidance.window[0]:.0%}–{guidance.window[1]:.0%}, gradient at every {guidance.every}"
    margin = "none" if guidance.margin_quantile is None else f"quantile {guidance.margin_quantile} of unguided energies"
    return [
        *lines,
        f"- Energy guidance: {guidance.objective} at the {guidance.mode} latents, scale {guidance.scale}, {window}, "
        f"temperature {guidance.temperature}, margin: {margin}, {guidance.decoder} decoder",
    ]


def _prompts(config: RunConfig) -> list[str]:
    prompts = config.prompts
    negative = [f"- Negative prompt: `{prompts.negative}`"] if prompts.negative else []
    if prompts.bank is not None:
        share = "" if prompts.photo_share is None else f", {prompts.photo_share:.0%} of them for photographs"
        return [f"- Prompts from the bank {Path(prompts.bank).name}, vocabulary {prompts.axes}{share}", *negative]
    given = (("Templates", prompts.templates), ("Styles", prompts.styles), ("Contents", prompts.contents))
    lines = [f"- {name}: {', '.join(f'`{x}`' for x in values if x)}" for name, values in given if any(values)]
    return [*lines, *negative]


def _views(config: RunConfig) -> list[str]:
    views = config.views
    if not views.count:
        return []
    area = f"{views.crop_scale[0]:.0%} to {views.crop_scale[1]:.0%} of the area"
    return [f"`.views` holds the teacher's logits of {views.count} random crops, {area}."]


def dataset_card(config: RunConfig, records: Sequence[Record], files: str = "shards/*.tar") -> str:
    """The card of a dataset in the field's usual form; ``files`` is where its samples lie, for ``datasets``."""
    rows, first = sum(r.rows for r in records), records[0]
    body = [
        f"# {config.name}",
        "",
        f"{rows} synthetic images of {first.classes} classes ({Path(config.labels).name}), made without any real image "
        "by prism-fast.",
        "",
        f"- Run: `{first.run_hash}`, seed {config.seed}",
        *_settings(config),
        f"- Engines: {config.engines.backend}, {config.engines.precision}",
        f"- Quarantined, because they did not stay finite: {sum(len(r.quarantined) for r in records)}",
        *_prompts(config),
        "",
        "The licences of the models apply to what they made:",
        "",
        *_models(config, first.models),
        "",
        "Each sample: image, `.cls` and `.label` (class), `.logits` (teacher logits, float16), `.json` (prompt, "
        "energies).",
        *_views(config),
    ]
    return _front_matter(config, rows, files) + "\n".join(body) + "\n"
