"""The run document: what it refuses, how it says so, and what its hash covers."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from prism_fast.config import bundled_configs, load_config
from prism_fast.config.identity import labels_identity
from prism_fast.errors import ConfigError, InputError


def _hash(*assignments: str) -> str:
    return load_config("minis-emoji", assignments).run_hash()


def test_every_bundled_configuration_loads() -> None:
    names = bundled_configs()
    assert set(names) >= {"minis-emoji", "imagenet1k-sd15"}
    for name, summary in names.items():
        assert load_config(name).name == name
        assert len(summary) > 10


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("colour=red", "colour"),
        ("guidance.scael=1", r"guidance\.scael"),
        ("guidance.deep.er=1", r"guidance\.deep"),
        ("guidance.scale=-1", r"guidance\.scale.*greater than or equal to 0"),
        ("guidance.scale=.nan", r"guidance\.scale.*finite"),
        ("guidance.scale=.inf", r"guidance\.scale.*finite"),
        ("guidance.max_gradient_rms=.inf", r"guidance\.max_gradient_rms.*finite"),
        ("guidance.margin_quantile=.nan", r"guidance\.margin_quantile"),
        ("sampling.guidance_scale=.inf", r"sampling\.guidance_scale.*finite"),
        ("distill.crop_scale=[0.5, .inf]", r"distill\.crop_scale.*finite"),
        ("guidance.scale=lots", r"guidance\.scale"),
        ("guidance.objective=entropy", r"guidance\.objective.*'free_energy'"),
        ("guidance.window=[0.8, 0.2]", r"window.*0\.8, 0\.2"),
        ("guidance.window=[0.1, 1.2]", r"window.*0\.1, 1\.2"),
        ("guidance.window=[-0.1, 0.5]", r"window.*-0\.1, 0\.5"),
        ("guidance.window=[0.5, 0.5]", "window"),
        ("guidance.window=[0.5]", r"guidance\.window"),
        ("guidance.view_scale=[0.5, 2]", "view_scale"),
        ("guidance.margin_quantile=1.5", r"guidance\.margin_quantile"),
        ("guidance.every=0", r"guidance\.every"),
        ("guidance=null", "guidance"),
        ("sampling.solver=heun", r"sampling\.solver.*'ddim'"),
        ("sampling.steps=0", r"sampling\.steps"),
        ("sampling.height=65", r"sampling\.height"),
        ("prompts.styles=[]", r"prompts\.styles"),
        ("prompts.templates=[]", "prompts: .*templates is empty"),
        ("synthesis.images=0", r"synthesis\.images"),
        ("synthesis.image_format=gif", r"synthesis\.image_format"),
        ("seed=-1", "seed"),
        ("seed=18446744073709551616", "seed"),
        ("seed.deep=1", "seed"),
        ("guidance.scale", "key=value"),
        ("guidance.scale=[1", r"guidance\.scale.*'\[1'"),
        ("=3", "minis-emoji"),
        ("distill.crop_scale=[2.0, 0.5]", r"distill: .*crop_scale must satisfy 0 < from <= to <= 1, got 2\.0, 0\.5"),
        ("distill.crop_scale=[0, 0]", "crop_scale"),
        ("distill.seed=12345678901234567890", r"distill\.seed"),
        ("sampling.batch_size=10000000000000000000000", r"sampling\.batch_size: .*from 1 to 65536, or auto"),
        ("sampling.batch_size=1e22", r"sampling\.batch_size: .*'1e22'"),
        ("launch.lease_s=1.0e-300", r"launch\.lease_s.*0\.05"),
        ("launch.lease_s=1.0e+300", r"launch\.lease_s.*604800"),
        ("synthesis.images=10000000000000000000000", r"synthesis\.images.*1000000000"),
        ("launch.streams=1000000000", r"launch\.streams"),
        ("engines.decoder_batch=0", r"engines\.decoder_batch.*greater than or equal to 1"),
        ("engines.decoder_batch=65537", r"engines\.decoder_batch.*65536"),
        ("sampling.steps=true", r"sampling\.steps: .*something else than true or false"),
        ("guidance.scale=false", r"guidance\.scale: .*something else than true or false"),
        ("guidance.window=[false, true]", r"guidance\.window: .*something else than true or false"),
        ("guidance.view_scale=[1.0e-300, 1.0e-299]", r"view_scale must begin at 0\.0001 or more"),
        ("sampling.steps=1:30", r"sampling\.steps.*'1:30'"),
        ("distill.steps=99999999999", r"distill\.steps"),
    ],
)
def test_a_bad_assignment_names_the_key(assignment: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load_config("minis-emoji", (assignment,))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["2024-99-99", "0x_", "0b_", "!!int x", "!!timestamp x", "!!bool x", "!!float x", "1" * 5000, "[" * 1000,
     "{" * 1000, "[" * 1000 + "]" * 1000, "!!python/name:os.system", "*nobody", "&a [*a]", "\x00", "? [", "!!binary x",
     "=", "<<", "{<<: 1}", "{[]: 1}", "-.inf", "1e400", "9" * 4000],
    ids=lambda text: text[:12].encode("unicode_escape").decode(),
)  # fmt: skip
@pytest.mark.parametrize("key", ["sampling.steps", "guidance.settled_below", "launch", "x" * 4000])
def test_whatever_is_no_value_is_one_short_line(key: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("minis-emoji", (f"{key}={text}",))
    assert key[:70] in str(caught.value)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["name: 2024-99-99", "seed: 0x_", "seed: !!int x", "a: " + "[" * 1000, "x" * 100_000])
def test_a_document_that_is_none_is_one_short_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml is not") as caught:
        load_config(tmp_path / "bad.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nseed: 1\nname: b\n", r"line 3: 'name' is there twice"),
        ("name: a\nguidance:\n  scale: 1\n  scale: 2\n", r"line 4: 'scale' is there twice"),
        ("name: a\nguidance: {scale: 1, 'scale': 2}\n", r"line 2: 'scale' is there twice"),
        ("name: a\nguidance:\n\tscale: 1\n", r"line 3: found character '\\t' that cannot start any token"),
        ("name: a\n---\nname: b\n", r"line 2: but found another document"),
    ],
)
def test_what_is_wrong_with_a_document_is_said_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    """Of two equal keys the last was taken, silently."""
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"bad\.yaml is not valid YAML: {said}"):
        load_config(tmp_path / "bad.yaml")


def test_an_assignment_has_no_key_twice() -> None:
    with pytest.raises(ConfigError, match=r"--set guidance: .* is not a YAML value: line 1: 'scale' is there twice"):
        load_config("minis-emoji", ("guidance={scale: 1, scale: 2}",))


def test_a_key_may_replace_one_that_is_merged_into_its_section(tmp_path: Path) -> None:
    document = yaml.safe_load(yaml.safe_dump(load_config("minis-emoji").model_dump(mode="json")))
    del document["launch"]
    text = yaml.safe_dump(document) + "launch:\n  <<: {streams: 2, restarts: 5}\n  streams: 3\n"
    (tmp_path / "merged.yaml").write_text(text)
    launch = load_config(tmp_path / "merged.yaml").launch
    assert (launch.streams, launch.restarts) == (3, 5)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_of_an_editor_that_marks_its_encoding(tmp_path: Path, encoding: str) -> None:
    document = {**load_config("minis-emoji").model_dump(mode="json"), "name": "été"}
    (tmp_path / "marked.yaml").write_text(yaml.safe_dump(document, allow_unicode=True), encoding=encoding)
    assert load_config(tmp_path / "marked.yaml").name == "été"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("blurry #1", "blurry #1"),
        ("#1", "#1"),
        (" a  #b #c ", "a  #b #c"),
        ("blurry#1", "blurry#1"),
        ("'blurry #1'", "blurry #1"),
    ],
)
def test_a_number_sign_is_no_comment_on_the_command_line(text: str, kept: str) -> None:
    assert load_config("minis-emoji", (f"prompts.negative={text}",)).prompts.negative == kept


@pytest.mark.parametrize("text", ["[a, b] # c", "'a' # c", "5 # c"])
def test_a_comment_behind_another_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"sampling\.steps"):
        load_config("minis-emoji", (f"sampling.steps={text}",))


def test_a_label_file_below_the_home_directory_is_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "labels.yaml").write_text("name: one\n")
    assert labels_identity("~/labels.yaml") == labels_identity(str(tmp_path / "labels.yaml")) != "~/labels.yaml"
    assert labels_identity("~/nothing.yaml") == "~/nothing.yaml"
    assert labels_identity("x" * 5000) == "x" * 5000


def test_assignments_are_yaml_and_apply_in_order() -> None:
    config = load_config(
        "minis-emoji",
        ("guidance.window=[0.2, 0.6]", "guidance.scale=1", "guidance.scale=0.25", "prompts.styles=[a, b=c]"),
    )
    assert config.guidance.window == (0.2, 0.6)
    assert config.guidance.scale == 0.25
    assert config.prompts.styles == ("a", "b=c")
    assert load_config("minis-emoji", ("distill.seed=7",)).distill.seed == 7


@pytest.mark.parametrize("text", ["name: [", "- a\n- b\n", "", "words", "name: x\n"])
def test_a_bad_file_is_one_clear_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml") as caught:
        load_config(str(file))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "binary.yaml"
    file.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match=r"binary\.yaml"):
        load_config(str(file))


def test_a_missing_configuration_names_the_bundled_ones(tmp_path: Path) -> None:
    for name in ("nowhere", str(tmp_path)):
        with pytest.raises(InputError, match="minis-emoji"):
            load_config(name)


def test_several_mistakes_are_counted() -> None:
    with pytest.raises(ConfigError, match=r"and 1 more"):
        load_config("minis-emoji", ("sampling.steps=0", "synthesis.images=0"))


def test_a_file_equals_its_bundled_twin(tmp_path: Path) -> None:
    config = load_config("minis-emoji")
    file = tmp_path / "copy.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert load_config(str(file)) == config
    assert load_config(str(file)).run_hash() == config.run_hash()


def test_a_document_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_config("minis-emoji").guidance.scale = 2.0  # type: ignore[misc]


@pytest.mark.parametrize(
    "assignment",
    [
        "seed=1",
        "guidance.scale=0.7",
        "guidance.enabled=false",
        "guidance.objective=joint",
        "guidance.window=[0.2, 0.8]",
        "sampling.steps=5",
        "sampling.solver=ddim",
        "sampling.dtype=bfloat16",
        "engines.decoder_batch=2",
        "prompts.styles=[noto]",
        "synthesis.image_format=webp",
        "synthesis.shard_size=10",
        "labels=imagenet1k",
    ],
)
def test_the_hash_covers_what_decides_the_bytes(assignment: str) -> None:
    assert _hash(assignment) != _hash()


@pytest.mark.parametrize(
    "assignment",
    [
        "sampling.device=cuda",
        "synthesis.images=7",
        "distill.steps=3",
        "distill.seed=4",
        "distill.selection=true",
        "evaluate.neighbours=3",
        "models.teacher=elsewhere",
        "engines.decoder_batch=null",
    ],
)
def test_the_hash_leaves_out_what_does_not(assignment: str) -> None:
    assert _hash(assignment) == _hash()


def test_the_hash_covers_the_label_file_not_its_place(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.yaml", "b.yaml", "c.yaml")]
    for file, name in zip(files, ("cat", "cat", "dog"), strict=True):
        file.write_text(f"name: pets\nclasses: [{{name: {name}}}]\n")
    one, copy, other = (_hash(f"labels={file}") for file in files)
    assert one == copy != other
    assert one != _hash()


def test_the_hash_is_a_sha256_and_the_same_each_time() -> None:
    assert _hash() == _hash()
    assert len(_hash()) == 64


@pytest.mark.parametrize(("text", "steps"), [("010", 10), ("0xa", 10), ("1_0", 10), ("+10", 10)])
def test_a_whole_number_is_what_it_looks_like(text: str, steps: int) -> None:
    assert load_config("minis-emoji", (f"sampling.steps={text}",)).sampling.steps == steps
