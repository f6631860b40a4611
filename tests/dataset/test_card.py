"""The dataset card says what the images came from, and is one that the hub's tools read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from prism_fast.config import RunConfig, assign
from prism_fast.dataset.card import dataset_card, stated_license
from prism_fast.dataset.run_directory import RunDirectory


def card_of(config: RunConfig, finished: Path) -> tuple[dict[str, object], str]:
    text = dataset_card(config, list(RunDirectory(finished).records().values()))
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_provenance(config: RunConfig, finished: Path) -> None:
    front, body = card_of(config, finished)
    assert front["license"] == "other"
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": "shards/*.tar"}]}]
    (record, *_) = RunDirectory(finished).records().values()
    for word in (
        config.run_hash(), *record.models.values(), "10 synthetic images of 3 classes", "`noto`, `blue`",
        "`a {style} style emoji of {content}`", "joint at the denoised latents, scale 0.3", "dpmpp_2m, 4 steps",
        "| teacher | teacher | not stated in its directory |",
    ):  # fmt: skip
        assert word in body
    assert str(Path(config.models.diffusion).parent) not in body  # nobody else has this path


def test_a_bank_is_named_in_place_of_templates(config: RunConfig, finished: Path) -> None:
    changes = {"prompts.bank": "/somewhere/bank.yaml", "prompts.templates": (), "prompts.photo_share": 0.5}
    _, body = card_of(assign(config, changes), finished)
    assert "- Prompts from the bank bank.yaml, vocabulary pictures, 50% of them for photographs\n" in body
    assert "somewhere" not in body
    assert "{sense}" not in body


def test_a_name_that_yaml_would_misread(config: RunConfig, finished: Path) -> None:
    front, _ = card_of(config.model_copy(update={"name": "a: b # c"}), finished)
    assert front["pretty_name"] == "a: b # c"


def test_an_unguided_run_says_so(config: RunConfig, finished: Path) -> None:
    plain = config.model_copy(update={"guidance": config.guidance.model_copy(update={"enabled": False})})
    assert "- Energy guidance: none" in card_of(plain, finished)[1]


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"README.md": "---\nlicense: openrail\n---\n# Model"}, "openrail"),
        ({"README.md": "# no front matter", "LICENSE": "\n  Apache License\n"}, "Apache License"),
        ({"README.md": "---\nlicense: [\n---\n"}, "not stated in its directory"),
        ({"README.md": "---"}, "not stated in its directory"),
        ({}, "not stated in its directory"),
    ],
)
def test_the_licence_is_the_models_own(tmp_path: Path, files: dict[str, str], wanted: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert stated_license(tmp_path) == wanted


def test_models_that_are_gone_have_no_licence(config: RunConfig, finished: Path) -> None:
    gone = config.model_copy(update={"models": config.models.model_copy(update={"teacher": "/nowhere/net"})})
    assert "| teacher | net | not stated in its directory |" in card_of(gone, finished)[1]


def test_the_bundled_models_have_a_notice(config: RunConfig, finished: Path) -> None:
    bundled = config.model_copy(update={"models": config.models.model_copy(update={"teacher": "minis"})})
    assert "| teacher | minis | see the NOTICE of prism-fast |" in card_of(bundled, finished)[1]
