"""A bank of three classes, and a generator of plain colours whose teacher believes what a prompt says."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.stub import Stub, stub_config
from prism_fast.config import RunConfig, load_config
from prism_fast.dataset.sample import Sample
from prism_fast.prompt_tools.checking.run import Outcome, check_prompts
from prism_fast.prompts.row import PlanRow
from prism_fast.synthesis.synthesizer import Made

NAMES = ("cat", "dog", "red")
#: What is right of "red" is an alternative.
BANK: dict[str, Any] = {
    "cat": {"name": "cat", "plural": "cats", "kind": "cat", "sense": "purring cat", "alternatives": ["barking dog"],
            "variants": ["black cat", "white cat"], "scenes": {"indoors": ["on a sofa"], "outdoors": ["on a roof"]}},
    "dog": {"name": "hound", "plural": "hounds", "kind": "dog", "sense": "barking dog", "variants": ["old hound"]},
    "red": {"name": "ruby", "plural": "rubies", "kind": "object", "sense": "programming <b>language</b> of cat owners",
            "alternatives": ["deep red stone", "plain stone"]},
}  # fmt: skip


def write_bank(folder: Path, **changes: dict[str, Any]) -> Path:
    """The bank, entries changed."""
    path = folder / "bank.yaml"
    path.write_text(yaml.safe_dump({name: {**entry, **changes.get(name, {})} for name, entry in BANK.items()}))
    return path


def bank_config(folder: Path, **sections: Any) -> RunConfig:
    """A run of three classes on such a bank, in batches of three."""
    path = folder / "bank.yaml" if (folder / "bank.yaml").exists() else write_bank(folder)
    sampling = {"batch_size": 3, "height": 8, "width": 8}
    return stub_config(folder, **{"prompts": {"bank": str(path)}, "sampling": sampling, **sections})


class Believer(Stub):
    """Its teacher sees the class whose name the sense holds, the first by label, else none in particular.

    ``rows`` is what was asked of it; ``lost`` are (index, word of the prompt) of what is quarantined; ``blind`` are
    words of a prompt with which nothing is seen.
    """

    def __init__(self, config: RunConfig, lost: Container[str] = (), blind: Sequence[str] = ()) -> None:
        super().__init__(config)
        self.rows, self.lost, self.blind = list[PlanRow](), lost, blind

    def denoise(self, rows: Sequence[PlanRow]) -> None:
        self.rows += rows

    def finish(self, rows: Sequence[PlanRow], sampled: None) -> Made:
        kept = [row for row in rows if row.prompt not in self.lost]
        return Made(tuple(map(self._seen, kept)), tuple(row.index for row in rows if row.prompt in self.lost))

    def _seen(self, row: PlanRow) -> Sample:
        sense = next((part for part in row.prompt.split(", ") if part.startswith("the ")), row.prompt)
        said = next((label for label, name in enumerate(NAMES) if name in sense.split()), None)
        logits = torch.zeros(self.classes)
        if said is not None and not any(word in row.prompt for word in self.blind):
            logits[said] = 2.0
        sample = super()._sample(row)
        return Sample(sample.index, sample.image, row.label, logits, sample.meta)


def check(config: RunConfig, out: Path, generator: Stub | None = None, **options: Any) -> Outcome:
    """A check of it; four images a sense unless said otherwise."""
    return check_prompts(config, out, generator=generator or Believer(config), **{"images": 4, **options})


def files(out: Path) -> dict[str, bytes]:
    """Everything that a check left, byte by byte."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def minis(bank: Path) -> RunConfig:
    """The bundled models on a bank, as they are without engines."""
    words = (f"prompts.bank={bank}", "prompts.axes=emoji", "prompts.templates=[]", "engines.backend=eager")
    return load_config("minis-emoji", (*words, "launch.streams=1", "sampling.batch_size=16"))
