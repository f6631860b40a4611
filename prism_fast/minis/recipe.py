"""The whole recipe of the bundled models, and the check of what it gave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from diffusers import AutoencoderDC, AutoencoderTiny

from prism_fast.evaluation.pictures import Pictures, load_pictures
from prism_fast.minis.autoencoder import psnr, train_autoencoder
from prism_fast.minis.light_decoder import light_psnr, train_light_decoder
from prism_fast.minis.teacher import accuracy, train_teacher
from prism_fast.minis.text_encoder import build_text_encoder
from prism_fast.minis.training import Budget
from prism_fast.minis.unet import captions_of, encode_pictures, make_scheduler, train_unet
from prism_fast.models.bundled import GENERATOR_STYLES, SHIFT_STYLES, TEACHER_STYLES, assets
from prism_fast.models.classifier import load_classifier

#: Shares of the training time; the rest of the recipe takes a few minutes.
AUTOENCODER_SHARE, LIGHT_SHARE = 0.2, 0.05
_INDEX = """{
  "_class_name": "StableDiffusionPipeline",
  "_diffusers_version": "0.42.1",
  "requires_safety_checker": false,
  "safety_checker": [null, null],
  "feature_extractor": [null, null],
  "image_encoder": [null, null],
  "scheduler": ["diffusers", "DDIMScheduler"],
  "text_encoder": ["transformers", "BertModel"],
  "tokenizer": ["transformers", "BertTokenizer"],
  "unet": ["diffusers", "UNet2DConditionModel"],
  "vae": ["diffusers", "AutoencoderDC"]
}
"""


def bundled_pictures(table: pa.Table) -> pa.Table:
    """What travels with the package: the teacher's training and validation pictures, and every test picture."""
    known = pc.field("style").isin(list(TEACHER_STYLES))
    return table.filter((pc.field("split") == "test") | known)


def train_all(work: Path, seconds: float, log: Callable[[str], None]) -> Path:
    """Train every model of the minis under ``work/bundle``; a second call goes on from the checkpoints.

    Raises:
        DataError: the pictures are not there; run ``prism-fast minis data`` first.
    """
    table, bundle = work / "emoji.parquet", work / "bundle"
    pictures = load_pictures(table, "train", GENERATOR_STYLES)
    captions = captions_of(pictures)
    diffusion = bundle / "diffusion"
    names = sorted(set(pq.read_table(table, columns=["concept"])["concept"].to_pylist()))
    encoder, tokenizer = build_text_encoder(diffusion, [*names, *(c for row in captions for c in row)])
    vae = train_autoencoder(pictures, work, Budget(seconds * AUTOENCODER_SHARE), log)
    latents = encode_pictures(vae, pictures)
    light = train_light_decoder(vae, latents, work, Budget(seconds * LIGHT_SHARE), log)
    share = 1 - AUTOENCODER_SHARE - LIGHT_SHARE
    unet = train_unet(latents, captions, tokenizer, encoder, work, Budget(seconds * share), log)
    light.half().save_pretrained(bundle / "light_decoder")
    vae.half().save_pretrained(diffusion / "vae")
    unet.half().save_pretrained(diffusion / "unet")
    make_scheduler().save_pretrained(diffusion / "scheduler")
    (diffusion / "model_index.json").write_text(_INDEX)
    train_teacher(
        load_pictures(table, "train", TEACHER_STYLES),
        load_pictures(table, "val", TEACHER_STYLES),
        bundle / "teacher",
        log,
    )
    pq.write_table(bundled_pictures(pq.read_table(table)), bundle / "test_pictures.parquet")
    (bundle / "README.md").write_text(model_card(check_bundle(bundle)))
    return bundle


def train_light(work: Path, seconds: float, log: Callable[[str], None]) -> Path:
    """Train the light decoder alone, for the bundled autoencoder, under ``work/light_decoder``.

    Raises:
        DataError: the pictures are not there; run ``prism-fast minis data`` first.
    """
    pictures = load_pictures(work / "emoji.parquet", "train", GENERATOR_STYLES)
    vae = AutoencoderDC.from_pretrained(assets() / "diffusion" / "vae").float().eval().requires_grad_(False)
    light = train_light_decoder(vae, encode_pictures(vae, pictures), work, Budget(seconds), log)
    light.half().save_pretrained(work / "light_decoder")
    return work / "light_decoder"


def _tests(table: Path) -> dict[str, Pictures]:
    generator_only = tuple(s for s in GENERATOR_STYLES if s not in TEACHER_STYLES)
    groups = {"known": TEACHER_STYLES, "generator_only": generator_only, "shift": SHIFT_STYLES}
    return {name: load_pictures(table, "test", styles) for name, styles in groups.items()}


def check_bundle(bundle: Path | None = None) -> dict[str, Any]:
    """Measure the bundled models on held-out pictures; every number is computed now."""
    root = bundle or assets()
    tests = _tests(root / "test_pictures.parquet")
    teacher = load_classifier(str(root / "teacher"))
    vae = AutoencoderDC.from_pretrained(root / "diffusion" / "vae").float().eval()
    light = AutoencoderTiny.from_pretrained(root / "light_decoder").float().eval()
    weights = sorted(root.rglob("*.safetensors"))
    return {
        **{f"teacher_top1_{name}": round(accuracy(teacher, pictures), 4) for name, pictures in tests.items()},
        **{f"test_pictures_{name}": len(pictures) for name, pictures in tests.items()},
        **{f"autoencoder_psnr_db_{name}": round(psnr(vae, pictures), 2) for name, pictures in tests.items()},
        **{f"light_decoder_psnr_db_{name}": round(light_psnr(light, vae, p), 2) for name, p in tests.items()},
        **{f"size_bytes_{w.parent.name}": w.stat().st_size for w in weights},
        "size_bytes_weights": sum(w.stat().st_size for w in weights),
    }


def model_card(found: dict[str, Any]) -> str:
    """The card of the bundled models, from measured numbers."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in found.items())
    return f"""# The minis

A text-to-image latent diffusion model of emoji at 64 pixels in diffusers' directory format (`diffusion/`), a 16-class
teacher (`teacher/`) and real pictures (`test_pictures.parquet`). Made by `prism-fast minis data` and
`prism-fast minis train`; the numbers below are printed by `prism-fast minis check`.

- Text encoder: the first four layers of all-MiniLM-L6-v2 (Apache-2.0), vocabulary cut to frequent pieces.
- Autoencoder: `AutoencoderDC`, eightfold, 16 channels, trained from scratch on the generator's training pictures.
- Light decoder (`light_decoder/`): `AutoencoderTiny` that imitates the autoencoder's decoder, for the energy gradient
  alone; its encoder is not trained. Its signal-to-noise ratio is against the full decoder's images.
- UNet: `UNet2DConditionModel`, v-prediction, trained from scratch on the same pictures.
- Teacher: EfficientNet-Lite0 (Apache-2.0 ImageNet weights) fine-tuned on the teacher styles.
- Generator styles: {", ".join(GENERATOR_STYLES)}. Teacher styles: {", ".join(TEACHER_STYLES)}. Styles nobody was
  trained on: {", ".join(SHIFT_STYLES)}. Test concepts were kept from every training.

| measured | value |
|---|---|
{rows}

Intended for demonstrations and tests of prism-fast. Pictures and weights trained on them: see NOTICE for credits.
"""
