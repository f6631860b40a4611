"""A bank is asked for class by class, put right by the model itself, kept at once, and never asked for twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prism_fast.errors import InputError
from prism_fast.labels.bank import BankEntry, load_bank
from prism_fast.labels.load import load_label_space
from prism_fast.prompt_tools.writing.answer import answer_schema, as_answer, read_answer
from prism_fast.prompt_tools.writing.client import Server
from prism_fast.prompt_tools.writing.request import requests_of
from prism_fast.prompt_tools.writing.write import Prices, Written, write_bank
from tests.prompt_tools.chat_server import CLASSES, ChatServer, Scripted, entry, says, serving


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(ChatServer()) as found:
        yield found


@pytest.fixture
def labels(tmp_path: Path) -> str:
    return write_labels(tmp_path)


def write_labels(folder: Path, **definitions: str) -> str:
    """Three classes, with definitions for some."""
    classes = [{"name": name, "definition": definitions.get(name, "")} for name in CLASSES]
    (folder / "labels.yaml").write_text(json.dumps({"name": "mine", "classes": classes}))
    return str(folder / "labels.yaml")


def written(server: ChatServer, labels: str, tmp_path: Path, model: str = "m", **given: Any) -> Written:
    return write_bank(labels, tmp_path / "bank.yaml", Server(server.url, model, retries=0), **given)


def test_a_bank_is_what_the_model_said(server: ChatServer, labels: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int, float]] = []
    done = written(server, labels, tmp_path, prices=Prices(2.0, 10.0), progress=lambda *now: seen.append(now))
    assert (done.classes, done.written, done.asked, done.cached, done.retries, done.missing) == (3, 3, 3, 0, 0, ())
    assert (done.tokens_in, done.tokens_out) == (300, 30)
    assert done.cost == pytest.approx(300 * 2e-6 + 30 * 1e-5)
    assert seen[-1] == (3, 3, 0.33)
    crane = load_bank(str(done.out), load_label_space(labels))[0]
    assert crane == read_answer(json.dumps(entry("crane")))
    assert list(crane.scenes) == ["outdoors", "indoors", "night"]  # empty places are left out
    assert server.keys == {"Bearer none"}


def test_a_request_names_the_class_its_meaning_and_the_others(server: ChatServer, tmp_path: Path) -> None:
    written(server, write_labels(tmp_path, bat="a wooden club for hitting balls"), tmp_path)
    asked = server.turns("bat")[0][0]["content"]
    assert "Definition: a wooden club for hitting balls\n" in asked
    assert asked.endswith("Other classes, which it must not be taken for: crane; kite")
    assert server.requests[0]["response_format"]["json_schema"]["strict"] is True


def test_of_many_classes_the_nearest_by_name_are_named() -> None:
    requests = requests_of(load_label_space("imagenet1k"), "pictures")
    assert (len(requests), requests[0].key) == (1000, "n01440764")
    terrier = next(request for request in requests if request.label.name == "Norwich terrier")
    others = terrier.messages[0].content.rpartition(": ")[2].split("; ")
    assert len(others) == 63
    assert {"Norfolk terrier", "Border terrier"} <= set(others[:8])
    assert "Norwich terrier" not in others


def test_the_schema_stays_within_strict_mode() -> None:
    objects = [answer_schema(), *answer_schema()["$defs"].values()]
    assert all(found["additionalProperties"] is False for found in objects)
    assert all(found["required"] == list(found["properties"]) for found in objects)
    assert not {"minLength", "minItems", "maxItems", "default", "pattern"} & set(_keys_within(objects))


def _keys_within(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from _keys_within(inner)
    if isinstance(value, list):
        for inner in value:
            yield from _keys_within(inner)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("I would rather not", "the answer holds no JSON object"),
        ('{"name": "crane"', "the answer holds no JSON object"),
        ('{"name": "crane",}', "Invalid JSON"),
        (json.dumps({"colour": "red", **entry("crane")}), "colour: Extra inputs are not permitted"),
        (json.dumps(entry("crane", kind="machine")), "kind: Input should be 'dog'"),
        (json.dumps(entry("crane", variants=["red crane", " "])), "variants.1: Value error, it is empty"),
        (json.dumps(entry("crane", sense="tall machine.")), "sense: Value error, 'tall machine.' ends with a mark"),
    ],
)
def test_what_is_no_entry_is_named(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match="^" + problem.replace(".", r"\.")):
        read_answer(text)


def test_an_answer_in_a_fence_is_read_and_mud_has_no_plural() -> None:
    mud = read_answer(f"Here it is:\n```json\n{json.dumps(entry('mud', plural=None))}\n```")
    assert (mud.plural, mud.uncountable) == (None, True)
    assert read_answer(as_answer(mud)) == mud


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (Scripted("no JSON"), "the answer holds no JSON object"),
        (Scripted(json.dumps({"word": "crane"})), "name: Field required"),
        (says("crane", sense="a tall machine"), "the sense 'a tall machine' has an article in front"),
        (Scripted('{"name": "cra', finish="length"), "cut off at the server's limit of tokens"),
        (Scripted("", refusal="I cannot"), "the model refused: I cannot"),
        (Scripted("", finish="content_filter"), "the server's filter held the answer back"),
        (Scripted(choices=False), "the answer has no choices"),
        (Scripted(" "), "the answer is empty"),
    ],
)
def test_a_complaint_goes_back_and_the_next_answer_is_taken(
    server: ChatServer, labels: str, tmp_path: Path, wrong: Scripted, complaint: str
) -> None:
    server.script("crane", wrong)
    done = written(server, labels, tmp_path)
    assert (done.missing, done.asked, done.retries, done.tokens_in) == ((), 3, 1, 400)
    first, second = server.turns("crane")
    assert [turn["role"] for turn in second] == ["user", "assistant", "user"]
    assert (second[0], second[1]["content"]) == (first[0], wrong.text or "{}")
    assert complaint in second[2]["content"]


def test_a_class_that_stays_wrong_is_named_and_the_others_are_kept(
    server: ChatServer, labels: str, tmp_path: Path
) -> None:
    server.script("kite", *[says("kite", plural="kitten")] * 2)
    done = written(server, labels, tmp_path, tries=2)
    assert [(one.name, one.problem) for one in done.missing] == [("kite", "'kitten' is no plural of 'kite'")]
    assert (done.written, done.out.exists()) == (2, False)
    again = written(server, labels, tmp_path)
    assert (again.cached, again.asked, again.missing) == (2, 1, ())
    assert Counter(server.asked()) == {"crane": 1, "bat": 1, "kite": 3}


def test_senses_that_name_another_class_are_found_in_the_whole_bank(
    server: ChatServer, labels: str, tmp_path: Path
) -> None:
    """The crane is accepted before there is a kite to be taken for."""
    server.script("crane", says("crane", sense="big steel kite that lifts loads"))
    done = written(server, labels, tmp_path, concurrency=1)
    assert (done.missing, done.asked, done.retries) == ((), 3, 1)
    corrected = server.turns("crane")[1]
    assert json.loads(corrected[1]["content"])["sense"] == "big steel kite that lifts loads"
    assert "the sense 'big steel kite that lifts loads' is another class: kite" in corrected[2]["content"]
    assert load_bank(str(done.out), load_label_space(labels))[0].sense == entry("crane")["sense"]


def test_a_sense_is_compared_with_those_already_there(server: ChatServer, labels: str, tmp_path: Path) -> None:
    server.script("bat", says("bat", sense="small black kite"))
    done = written(server, labels, tmp_path, concurrency=1, tries=1)
    assert [one.problem for one in done.missing] == ["the sense 'small black kite' is another class: kite"]
    assert len(list(done.answers.iterdir())) == 2


def test_only_what_has_changed_is_asked_again(server: ChatServer, labels: str, tmp_path: Path) -> None:
    before = written(server, labels, tmp_path).out.read_bytes()
    assert written(server, labels, tmp_path).cached == 3
    assert len(server.requests) == 3
    assert (tmp_path / "bank.yaml").read_bytes() == before
    changed = written(server, write_labels(tmp_path, bat="a flying mammal"), tmp_path)
    assert (changed.cached, server.asked()[3:]) == (2, ["bat"])
    other = written(server, labels, tmp_path, model="another")
    assert (other.cached, other.asked, len(server.requests)) == (0, 3, 7)


def test_what_is_complete_needs_no_server(server: ChatServer, labels: str, tmp_path: Path) -> None:
    written(server, labels, tmp_path)
    (tmp_path / "bank.yaml").unlink()
    done = write_bank(labels, tmp_path / "bank.yaml", Server("http://127.0.0.1:1/v1", "m"))
    assert (done.cached, done.asked, done.out.exists()) == (3, 0, True)


def test_a_damaged_answer_is_asked_for_again(server: ChatServer, labels: str, tmp_path: Path) -> None:
    said: list[str] = []
    kept = sorted(written(server, labels, tmp_path).answers.iterdir())
    kept[0].write_text('{"entry": {}}')
    assert written(server, labels, tmp_path, log=said.append).cached == 2
    assert len(said) == 1
    assert "holds no entry" in said[0]


def test_a_bank_of_ones_own_is_not_replaced(server: ChatServer, labels: str, tmp_path: Path) -> None:
    out = written(server, labels, tmp_path).out
    as_written = out.read_bytes()
    out.write_bytes(b"# My own copy.\n" + as_written.partition(b"\n")[2])
    own = out.read_bytes()
    assert written(server, labels, tmp_path).missing == ()  # it says the same
    assert out.read_bytes() == own
    with pytest.raises(InputError, match=r"was not written by this command, or was changed since"):
        written(server, labels, tmp_path, model="another")
    assert len(server.requests) == 3  # nothing was paid for
    out.write_bytes(as_written)
    server.script("bat", says("bat", sense="small club"))
    assert written(server, labels, tmp_path, model="another").missing == ()
    assert b"small club" in out.read_bytes()


def test_keys_that_yaml_has_other_ideas_of_and_letters_beyond_ascii_come_back(
    server: ChatServer, tmp_path: Path
) -> None:
    names = ["1", "yes", "café 🐈", "x: y"]
    classes = [{"name": name} for name in names]
    (tmp_path / "l.yaml").write_text(json.dumps({"name": "l", "classes": classes}, ensure_ascii=False))
    for i, name in enumerate(names):
        server.script(name, says(f"thing{'abcd'[i]}", confusions=["café 🐈", "no"]))
    done = written(server, str(tmp_path / "l.yaml"), tmp_path)
    entries: tuple[BankEntry, ...] = load_bank(str(done.out), load_label_space(str(tmp_path / "l.yaml")))
    assert [found.name for found in entries] == ["thinga", "thingb", "thingc", "thingd"]
    assert entries[0].confusions == ("café 🐈", "no")
