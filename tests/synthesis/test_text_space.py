"""Prompts as points: one encoder, two of them, the minis; each against transformers alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize
from transformers import (
    BertModel,
    BertTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from prism_fast.config import RunConfig, load_config
from prism_fast.errors import DataError, InputError
from prism_fast.models.bundled import assets
from prism_fast.models.diffusion import load_diffusion, load_text_encoders
from prism_fast.synthesis import text_space
from prism_fast.synthesis.text_space import TextSpace
from tests.tiny import make_diffusion

PROMPTS = ["a noto style emoji of cat", "a", "a blue style emoji of dog", "cat dog", ""]
TWO = {
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
}


def _clip(path: Path, suffix: str, width: int, pad: str) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz!"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=32, pad_token=pad)
    tokenizer.save_pretrained(path / f"tokenizer{suffix}")
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=width, num_hidden_layers=3, num_attention_heads=2,
        max_position_embeddings=32, projection_dim=8, eos_token_id=len(words) - 1,
    )  # fmt: skip
    model: Any = CLIPTextModelWithProjection(config) if suffix else CLIPTextModel(config)
    model.save_pretrained(path / f"text_encoder{suffix}")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_diffusion(tmp_path_factory.mktemp("one") / "model")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion XL's text parts and nothing else; the second tokenizer pads with another token, as there."""
    path = tmp_path_factory.mktemp("two")
    torch.manual_seed(0)
    _clip(path, "", 16, "<|endoftext|>")
    _clip(path, "_2", 24, "!")
    (path / "model_index.json").write_text(json.dumps(TWO))
    return path


def _config(diffusion: Path | str, *settings: str) -> RunConfig:
    return load_config("minis-emoji", (f"models.diffusion={diffusion}", *settings))


def _hidden_of_two(path: Path, prompt: str) -> torch.Tensor:
    """Alone and without padding: what stands before a token does not see what follows it."""
    means = []
    for suffix, kind in (("", CLIPTextModel), ("_2", CLIPTextModelWithProjection)):
        ids = CLIPTokenizer.from_pretrained(path / f"tokenizer{suffix}")(prompt, return_tensors="pt").input_ids
        encoder: Any = kind.from_pretrained(path / f"text_encoder{suffix}", dtype=torch.float64)
        means.append(encoder(ids, output_hidden_states=True).hidden_states[-2][0].mean(0))
    return torch.cat(means)


@torch.no_grad()
def test_two_encoders_are_the_last_but_one_layers_side_by_side(two: Path) -> None:
    found = TextSpace.load(_config(two)).vectors(PROMPTS)
    wanted = torch.stack([normalize(_hidden_of_two(two, prompt), dim=0) for prompt in PROMPTS])
    assert found.dtype == torch.float32
    assert found.shape == (5, 16 + 24)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=2e-6)


@torch.no_grad()
def test_one_encoder_is_the_mean_of_a_prompts_own_tokens(one: Path) -> None:
    """It was trained without a mask, so that its hidden states see the padding; they are not averaged over it."""
    tokenizer = BertTokenizer.from_pretrained(one / "tokenizer")
    encoder: Any = BertModel.from_pretrained(one / "text_encoder", dtype=torch.float64, add_pooling_layer=False)
    wanted = []
    for prompt in PROMPTS:
        long = tokenizer(prompt, padding="max_length", max_length=8, return_tensors="pt").input_ids
        own = len(tokenizer(prompt).input_ids)
        wanted.append(normalize(encoder(long)[0][0, :own].mean(0), dim=0))
    found = TextSpace.load(_config(one)).vectors(PROMPTS)
    torch.testing.assert_close(found.double(), torch.stack(wanted), rtol=0, atol=2e-6)


@torch.no_grad()
def test_the_minis_see_no_padding() -> None:
    folder = assets() / "diffusion"
    tokenizer = BertTokenizer.from_pretrained(folder / "tokenizer")
    encoder: Any = BertModel.from_pretrained(folder / "text_encoder", dtype=torch.float64, add_pooling_layer=False)
    hidden = [encoder(tokenizer(prompt, return_tensors="pt").input_ids)[0][0] for prompt in PROMPTS]
    wanted = torch.stack([normalize(x.mean(0), dim=0) for x in hidden])
    found = TextSpace.load(_config("minis")).vectors(PROMPTS)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=2e-6)
    near = ["a photo of a cat", "a picture of a cat", "a red house"]
    cat, other, house = TextSpace.load(_config("minis")).vectors(near)
    assert cat @ other > cat @ house + 0.1


@pytest.mark.parametrize("model", ["one", "two"])
def test_a_prompt_lies_where_it_lies_alone(
    model: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = TextSpace.load(_config(request.getfixturevalue(model)))
    many = [*PROMPTS, *reversed(PROMPTS), "red cat"]
    together = space.vectors(many)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(len(many)), rtol=0, atol=1e-6)
    alone = torch.cat([space.vectors([prompt]) for prompt in many])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-6)
    assert torch.equal(together[0], together[9])  # the same prompt is the same point, to the bit
    assert torch.pdist(together[[*range(5), 10]]).min() > 0.01  # and others are elsewhere: the order is kept
    monkeypatch.setattr(text_space, "BATCH", 2)
    torch.testing.assert_close(space.vectors(many), together, rtol=0, atol=2e-6)


def test_no_prompt_is_no_point(one: Path, two: Path) -> None:
    assert TextSpace.load(_config(one)).vectors([]).shape == (0, 16)
    assert TextSpace.load(_config(two)).vectors([]).shape == (0, 40)
    assert TextSpace.load(_config(two)).tokens([]) == []


def test_tokens_are_counted_before_they_are_cut(one: Path, two: Path) -> None:
    space = TextSpace.load(_config(one))
    assert space.limit == 8
    assert space.tokens(["", "a cat", "a noto style emoji of cat dog red", "a"]) == [2, 4, 10, 3]
    both = TextSpace.load(_config(two))
    assert (both.limit, both.tokens(["ab c", "a" * 50])) == (32, [5, 52])
    torch.testing.assert_close(both.vectors(["a" * 50]), both.vectors(["a" * 60]))  # 30 of either are kept


def test_float32_whatever_the_run_computes_in(one: Path) -> None:
    half = TextSpace.load(_config(one, "sampling.dtype=float16", "engines.backend=eager"))
    assert torch.equal(half.vectors(PROMPTS), TextSpace.load(_config(one)).vectors(PROMPTS))


def test_only_the_text_parts_need_be_there(one: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(one, tmp_path / "model"))
    (path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    shutil.rmtree(path / "vae")
    wanted = TextSpace.load(_config(one)).vectors(PROMPTS)
    assert torch.equal(TextSpace.load(_config(path)).vectors(PROMPTS), wanted)


def test_the_encoders_are_those_of_the_whole_model(one: Path) -> None:
    model = load_diffusion(one)
    ((tokenizer, encoder),) = load_text_encoders(one, dtype=torch.bfloat16)
    assert tokenizer.model_max_length == model.tokenizer.model_max_length == 8
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())
    for mine, other in zip(encoder.parameters(), model.text_encoder.parameters(), strict=True):
        assert torch.equal(mine, other.bfloat16())


def test_both_encoders_cut_to_the_same_length(two: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(two, tmp_path / "model"))
    file = path / "tokenizer_2" / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": 20}))
    assert [tokenizer.model_max_length for tokenizer, _ in load_text_encoders(path)] == [20, 20]


@pytest.mark.parametrize(
    ("part", "words"), [("", "does not exist"), ("tokenizer", "lacks tokenizer;"), ("text_encoder", "lacks text_enc")]
)
def test_what_is_missing_is_named(one: Path, tmp_path: Path, part: str, words: str) -> None:
    path = Path(shutil.copytree(one, tmp_path / "model"))
    shutil.rmtree(path / part)
    with pytest.raises(DataError, match=words) as caught:
        TextSpace.load(_config(path))
    assert str(path) in str(caught.value)
    assert "unet" not in str(caught.value)


def test_a_missing_second_tokenizer_is_named(two: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(two, tmp_path / "model"))
    shutil.rmtree(path / "tokenizer_2")
    with pytest.raises(DataError, match="lacks tokenizer_2"):
        load_text_encoders(path)


def test_a_device_that_is_not_there_is_refused(one: Path) -> None:
    with pytest.raises(InputError, match="cannot be used here"):
        TextSpace.load(_config(one, "sampling.device=cuda:99"))
