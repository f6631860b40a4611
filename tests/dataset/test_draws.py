"""Which class and turn a row is: whose turn it is, or what was decided."""

from __future__ import annotations

import hashlib
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from prism_fast.dataset.draws import (
    Decision,
    Draws,
    Need,
    Part,
    Reason,
    equal_part,
    load_draws,
    placed,
    read_reason,
    store_part,
    stored_part,
)
from prism_fast.errors import DataError
from prism_fast.prompts.order import in_turn, next_turns

REASON = Reason(
    run_hash="r",
    towards="agreement",
    images=9,
    needs=(Need(label=0, need=0.5, images=2, choices={"sort": {"a": 2.0}}),),
)


def part(start: int, labels: list[int], turns: list[int]) -> Part:
    return Part(start, np.array(labels, np.int32), np.array(turns, np.int32))


def test_classes_take_turns_where_nothing_is_decided() -> None:
    assert list(Draws(3).rows(2, 8)) == [(2, 0), (0, 1), (1, 1), (2, 1), (0, 2), (1, 2)]


@pytest.mark.parametrize(("start", "stop"), [(0, 9), (3, 5), (4, 8), (5, 6), (7, 9), (0, 4)])
def test_parts_stand_where_they_are(start: int, stop: int) -> None:
    draws = Draws(3, (part(4, [2, 2], [7, 8]), part(6, [0], [5])))
    wanted = [(0, 0), (1, 0), (2, 0), (0, 1), (2, 7), (2, 8), (0, 5), (1, 2), (2, 2)]
    assert list(draws.rows(start, stop)) == wanted[start:stop]


def test_spent_turns_are_those_of_the_rows_before() -> None:
    draws = Draws(3, (part(4, [2, 2], [7, 8]),))
    assert draws.spent(6) == [{0, 1}, {0}, {0, 7, 8}]
    assert draws.spent(0) == [set(), set(), set()]


def test_equal_numbers_go_on_with_what_is_not_spent() -> None:
    draws = Draws(2, (part(2, [0, 0, 0], [1, 3, 4]),))
    found = equal_part(draws, 5, 9, in_turn)
    assert (found.labels.tolist(), found.turns.tolist()) == ([1, 0, 1, 0], [1, 2, 2, 5])


def test_without_parts_equal_numbers_are_whose_turn_it_is() -> None:
    found = equal_part(Draws(3), 0, 11, in_turn)
    assert list(zip(found.labels.tolist(), found.turns.tolist(), strict=True)) == list(Draws(3).rows(0, 11))


def test_an_order_is_followed() -> None:
    assert next_turns(lambda label: (10 * label + i for i in count()), 2, {21}, 3) == [20, 22, 23]
    assert placed(np.array([1, 0, 1], np.int32), [[5], [7, 8]]).tolist() == [7, 5, 8]


def test_a_part_comes_back_with_its_reason(tmp_path: Path) -> None:
    made = part(4, [0, 1, 1, 0, 2], [3, 1, 2, 9, 4])
    decision = store_part(tmp_path, made, REASON)
    data = (tmp_path / decision.file).read_bytes()
    assert decision == Decision(start=4, stop=9, towards="agreement", sha256=hashlib.sha256(data).hexdigest())
    (found,) = load_draws(tmp_path, [decision], 3).parts
    assert (found.start, found.labels.tolist(), found.turns.tolist()) == (4, made.labels.tolist(), made.turns.tolist())
    assert read_reason(tmp_path, decision) == REASON


def test_what_was_asked_for_before_is_not_decided_again(tmp_path: Path) -> None:
    decision = store_part(tmp_path, part(4, [0, 1, 1, 0, 2], [3, 1, 2, 9, 4]), REASON)
    assert stored_part(tmp_path, 4, REASON.model_copy(update={"needs": ()})) == decision
    for other in ({"run_hash": "s"}, {"towards": "student"}, {"images": 10}, {"student": "s"}):
        assert stored_part(tmp_path, 4, REASON.model_copy(update=other)) is None
    assert stored_part(tmp_path, 5, REASON) is None
    (tmp_path / decision.file).write_bytes(b"PAR1 not any more")
    assert stored_part(tmp_path, 4, REASON) is None


def test_another_file_than_the_decided_one_is_refused(tmp_path: Path) -> None:
    decision = store_part(tmp_path, part(0, [0], [0]), REASON)
    store_part(tmp_path, part(0, [1], [0]), REASON)
    with pytest.raises(DataError, match=r"is damaged: it is not the file that run\.json names; restore it from a copy"):
        load_draws(tmp_path, [decision], 2)
    (tmp_path / decision.file).unlink()
    with pytest.raises(DataError, match="is missing, which says what rows 0 on are; restore it from a copy"):
        load_draws(tmp_path, [decision], 2)
