"""The page of a check, the bank that it writes, and the command."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from benchmarks.stub import stub_config
from prism_fast.config import RunConfig, assign
from prism_fast.errors import ConfigError, InputError
from prism_fast.labels.bank import load_bank
from prism_fast.labels.load import load_label_space
from prism_fast.prompt_tools.checking.choose import bank_text
from prism_fast.prompt_tools.checking.jobs import Senses
from prism_fast.prompt_tools.checking.run import check_prompts
from prism_fast.prompt_tools.checking.verdict import ClassVerdict, SenseVerdict
from tests.cli.conftest import Command, prism
from tests.prompt_tools.checks import Believer, bank_config, check, files, minis, write_bank

__all__ = ["prism"]  # the fixture


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return bank_config(tmp_path)


def test_the_page_shows_every_image_and_what_was_seen(config: RunConfig, tmp_path: Path) -> None:
    check(config, tmp_path / "out")
    page = (tmp_path / "out" / "check.html").read_text()
    assert len(re.findall(r'<img src="data:image/webp;base64,[^"]+" loading="lazy"', page)) == 24
    assert page.count('<figure class="no">') == 12
    assert page.count("<figcaption>dog</figcaption>") == page.count("<figcaption>cat</figcaption>") - 4 == 4
    assert "programming &lt;b&gt;language&lt;/b&gt; of cat owners" in page
    assert "<b>language" not in page
    assert not re.search(r'<script|https?://|src="(?!data:)', page)
    never = page[page.index('id="never"') : page.index('id="better"')]
    assert re.findall(r'<a href="#(c\d)">', never) == ["c0", "c2", "c2"]
    assert all(f'id="{place}"' in page for place in ("c0", "c1", "c2"))
    order = [page.index(f"<summary>{name}<") for name in ("red", "cat", "dog")]
    assert order == sorted(order)  # the worst first


def test_pictures_on_the_page_are_small(config: RunConfig, tmp_path: Path) -> None:
    class Large(Believer):
        def finish(self, rows: Any, sampled: None) -> Any:
            made = super().finish(rows, sampled)
            for sample in made.samples:
                object.__setattr__(sample, "image", sample.image.repeat_interleave(64, 1).repeat_interleave(32, 2))
            return made

    check(config, tmp_path / "out", Large(config), classes=["dog"])
    page = (tmp_path / "out" / "check.html").read_text()
    for data in re.findall(r"data:image/webp;base64,([^\"]+)", page):
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (48, 96)
    assert len(page) < 20_000


def test_names_are_escaped(tmp_path: Path) -> None:
    """Of classes too, wherever they stand."""
    evil = '"><script>alert(1)</script>'
    config = stub_config(tmp_path, prompts={"templates": ["{style} {content}"], "styles": [evil]})
    labels = tmp_path / "evil.yaml"
    labels.write_text(yaml.safe_dump({"name": "evil", "classes": [{"name": n} for n in (evil, "dog", "red")]}))
    check(assign(config, {"labels": str(labels), "name": evil}), tmp_path / "out")
    page = (tmp_path / "out" / "check.html").read_text()
    assert "<script" not in page
    assert page.count(html.escape(evil, quote=True).replace("&quot;", "&#34;")) > 10


def test_many_classes_are_one_page_of_folded_blocks(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(50)]
    labels = tmp_path / "many.yaml"
    labels.write_text(yaml.safe_dump({"name": "many", "classes": [{"name": name} for name in names]}))
    config = assign(stub_config(tmp_path), {"labels": str(labels), "sampling.batch_size": 8})
    check(config, tmp_path / "out", images=8)
    page = (tmp_path / "out" / "check.html").read_text()
    assert page.count("<img ") == 400
    assert "<details open>" not in page
    assert len(page) < 400 * 1000


def test_the_best_sense_is_chosen_and_the_others_are_kept(config: RunConfig, tmp_path: Path) -> None:
    best = tmp_path / "new" / "best.yaml"
    check(config, tmp_path / "out", choose=best)
    entries = load_bank(str(best), load_label_space(config.labels))
    assert [entry.sense for entry in entries] == ["purring cat", "barking dog", "deep red stone"]
    assert entries[2].alternatives == ("programming <b>language</b> of cat owners", "plain stone")
    own = load_bank(str(config.prompts.bank), load_label_space(config.labels))
    assert entries[:2] == own[:2]
    assert entries[2].model_copy(update={"sense": own[2].sense, "alternatives": own[2].alternatives}) == own[2]
    chosen = assign(config, {"prompts.bank": str(best)})
    result = check(chosen, tmp_path / "again").checked
    assert result.better == ()


def test_of_classes_that_were_not_checked_nothing_changes(config: RunConfig, tmp_path: Path) -> None:
    check(config, tmp_path / "out", classes=["cat"], choose=tmp_path / "best.yaml")
    space = load_label_space(config.labels)
    assert load_bank(str(tmp_path / "best.yaml"), space) == load_bank(str(config.prompts.bank), space)


def test_a_tie_is_decided_by_probability_and_else_stays(config: RunConfig, tmp_path: Path) -> None:
    """No sense of "red" is ever confirmed: the one in use takes a cat's share, the third none."""
    write_bank(tmp_path, red={"alternatives": ["plain stone", "other stone"]})
    (verdict,) = check(config, tmp_path / "out", classes=["red"], choose=tmp_path / "best.yaml").checked.classes
    assert [sense.agreed.confirmed for sense in verdict.senses] == [0, 0, 0]
    assert verdict.best == 1  # 1/3 against 0.11, and the third is no better
    write_bank(tmp_path, red={"sense": "plain stone", "alternatives": ["other stone"]})
    assert check(config, tmp_path / "out", classes=["red"]).checked.classes[0].best == 0


def test_a_bank_is_written_once(config: RunConfig, tmp_path: Path) -> None:
    best = tmp_path / "best.yaml"
    check(config, tmp_path / "out", choose=best)
    before = best.read_bytes(), best.stat().st_mtime_ns
    check(config, tmp_path / "out", choose=best)
    assert (best.read_bytes(), best.stat().st_mtime_ns) == before
    best.write_text("mine: {}")
    with pytest.raises(InputError, match="is there and says something else; delete it, or name another file with --"):
        check(config, tmp_path / "out", choose=best)
    assert best.read_text() == "mine: {}"


def test_templates_have_nothing_to_choose_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--choose needs a prompt bank, and stub has templates; set prompts\.bank$"):
        check(stub_config(tmp_path), tmp_path / "out", choose=tmp_path / "best.yaml")
    assert not (tmp_path / "out").exists()


def test_a_part_of_imagenet_has_its_ids_as_keys(tmp_path: Path) -> None:
    labels = tmp_path / "part.yaml"
    labels.write_text("name: part\nsynsets: [n03000684, n01440764]\n")
    config = assign(bank_config(tmp_path), {"labels": str(labels), "prompts.bank": "bundled"})
    space = load_label_space(str(labels))
    own = load_bank("bundled", space)
    verdict = _verdict(1, (own[1].sense, "green fish"), best=1)
    text = bank_text(config, space, [verdict])
    assert list(yaml.safe_load(text)) == ["n03000684", "n01440764"]
    (path := tmp_path / "best.yaml").write_text(text)
    saw, tench = load_bank(str(path), space)
    assert (saw, tench.sense, tench.alternatives) == (own[0], "green fish", (own[1].sense,))
    assert Senses(assign(config, {"prompts.bank": str(path)}), space).of(1) == ("green fish", own[1].sense)


def _verdict(label: int, senses: tuple[str, ...], best: int) -> ClassVerdict:
    nothing = {"n": 0, "confirmed": 0, "agreement": None, "low": None, "high": None}
    found = [
        {"class_name": "", "label": label, "number": number, "sense": sense, "quarantined": 0, "agreed": nothing,
         "probability": None, "saw": ()}
        for number, sense in enumerate(senses)
    ]  # fmt: skip
    made = tuple(SenseVerdict.model_validate(one) for one in found)
    return ClassVerdict(name="", label=label, key="", best=best, senses=made, choices=())


@pytest.fixture
def command(prism: Command, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Command, Path]:
    """``prompts check`` where networks are stubbed, and a configuration of it."""
    from prism_fast.cli import prompts
    from prism_fast.cli.prompts_check import check as the_command
    from prism_fast.prompt_tools.checking import run

    if not any(one.callback is the_command for one in prompts.app.registered_commands):
        prompts.app.command()(the_command)
    monkeypatch.setattr(run, "_models", lambda config, *others: (Believer(config), {}))
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return prism, path


def test_the_command_prints_the_worst_and_totals(command: tuple[Command, Path], tmp_path: Path) -> None:
    prism, path = command
    found = prism("prompts", "check", path, "--out", tmp_path / "out", "--images", 4, "--choose", tmp_path / "b.yaml")
    assert found.code == 0
    first = found.out.splitlines()[1]
    assert first.split()[:2] == ["cat", "barking"]
    assert "12 of 24 images confirmed, 50.0% (31.4% to 68.6%)\n" in found.out
    assert "6 senses: 3 never confirmed, 1 with a better alternative; 0 images quarantined\n" in found.out
    assert found.err.splitlines()[-1].startswith("check: 24/24 (")
    answer = prism("prompts", "check", path, "--out", tmp_path / "out", "--images", 4, "--classes", "red, 0", "--json")
    document = json.loads(answer.out)
    assert (document["classes"], document["n"], document["confirmed"], document["found"]) == (2, 20, 8, 2)
    assert [sense["class_name"] for sense in document["never"]] == ["cat", "red", "red"]


def test_the_command_says_what_is_wrong_in_a_line(command: tuple[Command, Path], tmp_path: Path) -> None:
    prism, path = command
    wrong = prism("prompts", "check", path, "--out", tmp_path / "out", "--classes", "red,dgo")
    assert wrong.code == 2
    assert "class 'dgo' is not in label space 'pets'; close ones are 'dog'" in wrong.error()
    bare = prism(
        "prompts", "check", path, "--out", tmp_path / "out", "--choose", tmp_path / "b", "--set", "prompts.bank=null",
        "--set", "prompts.templates=['{name}']",
    )  # fmt: skip
    assert bare.code == 2
    assert bare.error().startswith("--choose needs a prompt bank")


def test_the_bundled_generator_is_asked_twice_the_same(tmp_path: Path) -> None:
    """Without guidance, on real networks: resumed, it ends with the same bytes."""
    config = assign(minis(write_emoji(tmp_path)), {"sampling.steps": 2})
    check_prompts(config, tmp_path / "one", classes=["vehicle"], images=2)
    check_prompts(config, tmp_path / "two", classes=["face"], images=2)
    found = check_prompts(config, tmp_path / "two", classes=["vehicle"], images=2)
    assert (found.made, found.found) == (1, 0)
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert all(two[name] == data for name, data in one.items())


@pytest.mark.slow
def test_the_bundled_teacher_finds_a_wrong_sense(tmp_path: Path) -> None:
    """A tank of beer and one on wheels: the wrong sense is in use, the right one its alternative."""
    config, best = minis(write_emoji(tmp_path)), tmp_path / "best.yaml"
    found = check_prompts(config, tmp_path / "out", classes=["face", "mammal", "vehicle"], images=8, choose=best)
    worst, *others = found.checked.senses
    assert (worst.sense, worst.agreed.n) == ("glass of beer", 8)
    assert worst.agreed.confirmed <= 1
    assert worst.saw[0].class_name != "vehicle"
    assert all(sense.agreed.confirmed >= 5 for sense in others)  # 6, 7 and 7 of 8 where this was written
    assert [better.alternative.sense for better in found.checked.better] == ["ground vehicle such as a bus"]
    entries = load_bank(str(best), space := load_label_space("emoji"))
    assert entries[space.index("vehicle")].sense == "ground vehicle such as a bus"
    assert entries[space.index("vehicle")].alternatives == ("glass of beer",)


def write_emoji(folder: Path) -> Path:
    """The emoji's bank with a class that is wrong on purpose."""
    own = load_bank("bundled", space := load_label_space("emoji"))
    document = {c.name: e.model_dump(mode="json") for c, e in zip(space.classes, own, strict=True)}
    document["vehicle"] |= {
        "name": "tank", "plural": "tanks", "variants": [], "sense": "glass of beer",
        "alternatives": ["ground vehicle such as a bus"],
    }  # fmt: skip
    path = folder / "emoji.yaml"
    path.write_text(yaml.safe_dump(document))
    return path
