"""``prism-fast prompts``: the plan, or the linter of a bank."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Command
from tests.prompts.test_banked import EMOJI


def test_the_command_says_what_is_wrong_and_ends_with_two(prism: Command, tmp_path: Path) -> None:
    given = [word for setting in EMOJI for word in ("--set", setting)]
    right = prism("prompts", "lint", "minis-emoji", *given)
    assert (right.code, right.out) == (0, "16 classes, 0 problems, lengths counted with the model's tokenizer\n")
    labels, bank = tmp_path / "labels.yaml", tmp_path / "bank.yaml"
    labels.write_text("name: x\nclasses: [{name: crane}]\n")
    bank.write_text("crane: {name: crane, plural: crans, kind: bird, sense: a bird}\n")
    wrong = prism(
        "prompts", "lint", "minis-emoji", "--set", f"labels={labels}", "--set", f"prompts.bank={bank}",
        "--set", "prompts.templates=[]", "--json",
    )  # fmt: skip
    assert wrong.code == 2
    assert "\"problem\": \"'crans' is no plural of 'crane'\"" in wrong.out
    assert wrong.err == "error: the prompt bank has 3 problems\n"
    plain = prism("prompts", "lint", "minis-emoji")
    assert plain.code == 2
    assert "makes its prompts from templates; set prompts.bank to check one" in plain.error()


def test_prompts_of_a_configuration_is_its_plan(prism: Command) -> None:
    """The word ``show`` may be left out, as before there were others."""
    assert (
        prism("prompts", "minis-emoji", "--images", "3").out
        == prism("prompts", "show", "minis-emoji", "--images", "3").out
    )
