"""Each format is written into a folder beside ``out``, read back by its own library, and compared with eager."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from torch.export import ExportedProgram

from prism_fast.distillation.model_card import Card, Checked, model_card
from prism_fast.errors import InputError
from prism_fast.evaluation.cost import BACKENDS, cost_of
from prism_fast.operations.export_student import onnx_file, timm_directory, torch_program
from prism_fast.operations.export_student.source import Source, open_source
from prism_fast.operations.export_student.traced import traced
from prism_fast.storage.folders import whole_folder

Format = Literal["safetensors", "onnx", "torch"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True)
class ExportedFile:
    """One format: its main file, and the largest difference of a logit from eager in float32."""

    format: Format
    file: str
    size_bytes: int
    error: float


@dataclass(frozen=True)
class Exported:
    """What lies in ``out``. ``notes``: what was asked for and left out, and why."""

    out: Path
    files: tuple[ExportedFile, ...]
    notes: tuple[str, ...]


class _Work:
    """One export: the network, traced at most once for the formats that need it."""

    def __init__(self, source: Source, half: bool) -> None:
        self.source, self.half = source, half

    @cached_property
    def program(self) -> ExportedProgram:
        return traced(self.source, self.half)

    def safetensors(self, folder: Path) -> tuple[Path, float]:
        return timm_directory.write(self.source, folder, self.half)

    def onnx(self, folder: Path) -> tuple[Path, float]:
        return onnx_file.write(self.program, self.source, folder, self.half)

    def torch(self, folder: Path) -> tuple[Path, float]:
        return torch_program.write(self.program, self.source, folder, self.half)

    def write(self, name: Format, folder: Path) -> ExportedFile:
        writers: dict[Format, Callable[[Path], tuple[Path, float]]] = {
            "safetensors": self.safetensors,
            "onnx": self.onnx,
            "torch": self.torch,
        }
        file, error = writers[name](folder)
        size = sum(part.stat().st_size for part in (file, file.with_name(f"{file.name}.data")) if part.exists())
        return ExportedFile(name, file.name, size, error)


def export_student(
    student: Path, out: Path, formats: Sequence[Format] = FORMATS, *, half: bool = False, latency: bool = False
) -> Exported:
    """Write a student for other tools, each format compared with eager in float32, and a model card beside them.

    ``safetensors``: ``config.json`` and ``model.safetensors`` as timm's models lie on the hub. ``onnx``: ``model.onnx``
    and ``torch``: ``model.pt2``, which take pixels in [0, 1], (n, 3, s, s) float32 for any n, and give logits in
    float32; the student's normalisation is inside. ``half``: weights in float16, and arithmetic in the last two.

    Args:
        student: what ``distill`` wrote, its ``student`` folder, or any classifier directory.
        out: a new or empty folder.
        formats: which; of several, one that this network cannot have is left out and named in the notes.
        half: weights in float16.
        latency: measure milliseconds for the model card.

    Raises:
        InputError: no such student, a format that it cannot have, a package that is missing, or ``out`` is not empty.
        DataError: the directory is incomplete. RunError: a format does not give the student's logits, or the disk
            refused; nothing is left in ``out``.
    """
    source = open_source(student)
    wanted, notes = _possible(source, formats)
    if "onnx" in wanted:
        onnx_file.require_packages()
    work = _Work(source, half)
    with whole_folder(out) as staged:
        files = tuple(work.write(name, staged) for name in wanted)
        cost = cost_of(source.classifier, latency=BACKENDS if latency else ())
        checked = tuple(Checked(one.format, one.file, one.size_bytes, one.error) for one in files)
        card = Card(source.config, cost=cost, files=checked, half=half, earlier=source.card)
        (staged / "README.md").write_text(model_card(card), encoding="utf-8")
    return Exported(out, files, notes)


def _possible(source: Source, formats: Sequence[Format]) -> tuple[tuple[Format, ...], tuple[str, ...]]:
    """The formats that the network can have, in our order, and a note on the one that it cannot."""
    asked = tuple(name for name in FORMATS if name in formats)
    if not asked or len(asked) < len(set(formats)):
        raise InputError(f"formats are {', '.join(formats) or 'none'}; expected some of {', '.join(FORMATS)}")
    refusal = timm_directory.refusal(source) if "safetensors" in asked else None
    if refusal is None:
        return asked, ()
    rest = tuple(name for name in asked if name != "safetensors")
    if not rest:
        raise InputError(f"{refusal}; choose --format onnx or torch")
    return rest, (f"no safetensors: {refusal}",)
