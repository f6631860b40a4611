"""Prompts that are longer than the text encoder: found, counted and warned of, once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from prism_fast.errors import DataError
from prism_fast.models import text
from prism_fast.models.diffusion import DiffusionModel, load_diffusion
from prism_fast.models.text import limit_tokens, tokenize, too_long
from tests.tiny import make_diffusion

FITS, LONG = "a noto style emoji of cat", "a noto style emoji of cat dog"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    return load_diffusion(make_diffusion(tmp_path_factory.mktemp("models") / "diffusion"))


@pytest.fixture(autouse=True)
def untold() -> Iterator[None]:
    before = set(text._told)
    text._told.clear()
    yield
    text._told.clear()
    text._told.update(before)


def test_too_long_counts_begin_and_end(model: DiffusionModel) -> None:
    assert too_long([FITS, LONG, "a"], model.tokenizer, 8) == [(LONG, 9)]
    assert too_long([FITS], model.tokenizer, 7) == [(FITS, 8)]
    assert too_long([], model.tokenizer, 8) == []


def test_a_cut_prompt_is_warned_of_once(model: DiffusionModel, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "prism_fast"):
        tokenize([FITS], model.tokenizer)
        assert not caplog.records
        tokenize([FITS, LONG, LONG + " red"], model.tokenizer)
        tokenize([LONG], model.tokenizer)
    (record,) = caplog.records
    line = record.getMessage()
    assert record.name == "prism_fast"
    assert line.startswith("2 of the prompts are cut to the text encoder's 8 tokens, the first has 9: ")
    assert repr(LONG) in line
    assert "\n" not in line


def test_what_is_cut_is_what_it_was(model: DiffusionModel) -> None:
    cut = tokenize([LONG], model.tokenizer)
    plain = model.tokenizer([LONG], truncation=True, max_length=8, padding="max_length", return_tensors="pt")
    assert torch.equal(cut.input_ids, plain.input_ids)
    assert cut.input_ids.shape == (1, 8)


def _pair(limit: int, positions: int | None, **config: Any) -> tuple[Path, Any, Any]:
    class Tokenizer(SimpleNamespace):
        def __len__(self) -> int:
            return 10

    tokenizer = Tokenizer(model_max_length=limit, pad_token_id=0)
    encoder = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=positions, vocab_size=10, **config))
    return Path("model/tokenizer"), tokenizer, encoder


def test_two_encoders_get_the_same_length() -> None:
    pairs = [_pair(77, 77), _pair(int(1e30), 64)]
    limit_tokens(pairs)
    assert [tokenizer.model_max_length for _, tokenizer, _ in pairs] == [64, 64]


def test_positions_that_count_from_the_padding_are_fewer() -> None:
    pair = _pair(int(1e30), 514, model_type="xlm-roberta", pad_token_id=1)
    limit_tokens([pair])
    assert pair[1].model_max_length == 512


def test_no_length_anywhere_is_one_line() -> None:
    with pytest.raises(DataError, match="says no model_max_length and its encoder no number of positions"):
        limit_tokens([_pair(int(1e30), None)])


def test_a_tokenizer_that_cannot_pad_is_one_line() -> None:
    pair = _pair(8, 8)
    pair[1].pad_token_id = None
    with pytest.raises(DataError, match="has no padding token; set pad_token"):
        limit_tokens([pair])
