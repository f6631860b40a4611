"""Names of engines: every field decides, equal things have equal names."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from prism_engines import vjp
from prism_engines.errors import EngineInputError
from prism_engines.graph import Graph, _tracing_code, code_identity, graph_hash, weights_hash
from prism_engines.lowerings import pooling
from prism_engines.passes import folding
from prism_engines.spec import EngineKey, EngineSpec, Precision, TensorSpec, canonical_json, inputs_json
from torch import nn

from tests.engines import tiny

KEY = EngineKey("unet", "g" * 64, "w" * 64, inputs_json(tiny.spec()), "fp32", "eager", "2.9", "cpu")


@pytest.mark.parametrize("name", [f.name for f in fields(EngineKey)])
def test_every_field_changes_the_digest(name: str) -> None:
    assert replace(KEY, **{name: "another"}).digest != KEY.digest


def test_equal_keys_have_one_digest() -> None:
    assert replace(KEY).digest == KEY.digest
    assert len(KEY.digest) == 64
    assert int(KEY.digest, 16) >= 0


def test_values_do_not_run_into_each_other() -> None:
    assert replace(KEY, part="ab", target="c").digest != replace(KEY, part="a", target="bc").digest


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16", "int64", "int32", "bool"])
def test_dtypes_of_torch_are_known(name: str) -> None:
    assert TensorSpec("x", (1,), name).torch_dtype == getattr(torch, name)


@pytest.mark.parametrize("name", ["float31", "nn", "Tensor", "", "torch.float32"])
def test_an_unknown_dtype_is_refused(name: str) -> None:
    with pytest.raises(EngineInputError, match=f"tensor latents: torch knows no dtype '{name}'"):
        _ = TensorSpec("latents", (1, 4), name).torch_dtype


def test_the_batch_is_the_first_axis_of_the_first_input() -> None:
    spec = EngineSpec("p", (TensorSpec("x", (7, 3)), TensorSpec("m", (2, 2))), ("y",))
    assert spec.batch == 7
    assert spec.precision == "fp32"


def test_inputs_json_says_everything_of_inputs_and_outputs() -> None:
    spec = tiny.spec()
    assert json.loads(inputs_json(spec)) == {
        "inputs": [
            {"name": "x", "shape": [tiny.BATCH, 3, 6, 6], "dtype": "float32"},
            {"name": "labels", "shape": [tiny.BATCH], "dtype": "int64"},
        ],
        "outputs": ["features", "logits"],
    }
    assert inputs_json(spec) != inputs_json(replace(spec, outputs=("logits", "features")))
    assert inputs_json(spec) == inputs_json(replace(spec, part="other", precision="bf16"))


def test_canonical_json_has_one_spelling() -> None:
    assert canonical_json({"b": [1, 2.5], "a": None}) == '{"a":null,"b":[1,2.5]}'
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})


def test_weights_decide_their_hash() -> None:
    want = weights_hash(tiny.net())
    assert weights_hash(tiny.net()) == want
    nudged = tiny.net()
    nudged.head.weight[3, 0] += 1e-6
    assert weights_hash(nudged) != want
    assert weights_hash(tiny.net("bf16")) != want


class Numbers(nn.Module):
    """One tensor under any name and of any shape."""

    def __init__(self, name: str, value: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer(name, value)


def test_names_shapes_and_types_count_beside_the_bytes() -> None:
    zeros = torch.zeros(4)
    values = [
        Numbers("a", zeros),
        Numbers("b", zeros),
        Numbers("a", zeros.view(2, 2)),
        Numbers("a", zeros.int()),
        Numbers("a", torch.zeros(())),
        Numbers("a", torch.zeros(0)),
        Numbers("a", torch.zeros(4, dtype=torch.bool)),
        Numbers("a", torch.zeros(4, dtype=torch.bfloat16)),
    ]
    assert len({weights_hash(value) for value in values}) == len(values)


def test_a_transposed_weight_is_hashed_by_its_values() -> None:
    x = torch.arange(6.0).view(2, 3)
    assert weights_hash(Numbers("a", x.t())) == weights_hash(Numbers("a", x.t().contiguous()))


def test_the_structure_and_what_else_is_given_decide_the_graph() -> None:
    want = graph_hash(tiny.net(), "objective", "1.0")
    assert graph_hash(tiny.net(), "objective", "1.0") == want
    assert graph_hash(tiny.net(), "objective", "2.0") != want
    assert graph_hash(tiny.net(), "objective1.0") != want
    wider = tiny.net()
    wider.conv = nn.Conv2d(3, 8, 3, padding=1, dilation=2)
    assert graph_hash(wider, "objective", "1.0") != want


CODE = """
class Lowered(Base):
    limit = 6

    def run(self, x, *, axis=None):
        y = (x + 1) * self.limit
        return {**y, "text": None} if y is not None else f"{x:>{axis}}"

async def later():
    pass
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("limit = 6", "limit = 6  # of ReLU6"),
        ("limit = 6\n", "limit = 6\n\n\n"),
        ("(x + 1) * self.limit", "(\n            x  +  1\n        ) * self.limit"),
        ('"text"', "'text'"),
        ("\nclass", "'''A module.'''\n\nclass"),
        ("    limit", "    '''A class.'''\n\n    limit"),
        ("        y =", "        '''A function,\n\n        at length.\n        '''\n        y ="),
        ("    pass", "    '''A coroutine.'''\n    pass"),
    ],
)
def test_words_and_layout_are_no_code(old: str, new: str) -> None:
    assert CODE.count(old) == 1
    assert code_identity([CODE.replace(old, new)]) == code_identity([CODE])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("6", "6.0"),
        ("1", "True"),
        ("x + 1", "x - 1"),
        ("(x + 1) * self", "x + 1 * self"),
        ('"text"', '"Text"'),
        (": None", ": ..."),
        ("is not None", "is None"),
        ("axis=None", "axis"),
        ("*, axis", "axis"),
        (":>", ":<"),
        ("(Base)", ""),
        ("limit = 6", "limit = 6; 'no docstring here'"),
        ("async def", "def"),
        ("    pass", "    return"),
    ],
)
def test_all_that_runs_is_code(old: str, new: str) -> None:
    assert CODE.count(old) == 1
    assert code_identity([CODE.replace(old, new)]) != code_identity([CODE])


def test_different_code_has_different_identities() -> None:
    sources = [["a = 1", "b = 2"], ["b = 2", "a = 1"], ["a = 1\nb = 2"], ["a = None"], ["a = 0"], ["a = ''"], [""], []]
    sources += [["def f(): return"], ["def f(): return None"], ["def f(): return ()"], ["def f(): return []"]]
    assert len({code_identity(one) for one in sources}) == len(sources)


def graph_hash_with(path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The hash that a graph would have if ``path`` held ``text``."""
    read = Path.read_text
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", lambda self, *rest: text if self == path else read(self, *rest))
        _tracing_code.cache_clear()
        found = graph_hash(tiny.net())
    _tracing_code.cache_clear()
    return found


@pytest.mark.parametrize(("module", "old", "new"), [(vjp, " or ", " and "), (folding, "+", "-"), (pooling, "+", "-")])
def test_the_tracing_code_decides_the_graph_and_its_comments_do_not(
    module: ModuleType, old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(str(module.__file__))
    source = path.read_text()
    same = source.replace('"""', '"""Said otherwise: ', 1) + "\n\n# the end\n"
    changed = source.replace(old, new)
    assert source not in (same, changed)
    want = graph_hash(tiny.net())
    assert graph_hash_with(path, same, monkeypatch) == want
    assert graph_hash_with(path, changed, monkeypatch) != want


def test_a_graph_is_traced_once_a_precision(tmp_path: Path) -> None:
    traced: list[Precision] = []

    def trace(precision: Precision) -> nn.Module:
        traced.append(precision)
        return tiny.net(precision).train()

    graph = Graph(tiny.spec(), trace, tiny.batch(tiny.BATCH), tmp_path)
    assert graph.module("fp32") is graph.module("fp32")
    assert graph.module("bf16") is not graph.module("fp32")
    assert traced == ["fp32", "bf16"]
    assert not graph.module("fp32").training
