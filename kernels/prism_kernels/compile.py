"""Compile every kernel for GPUs that are not here, and count the bytes it moves.

Triton ships NVIDIA's assembler, so registers, spills and the width of every global access are known without a device.
The compiled specialisation is the one that :func:`launch` asks for: its launch is recorded while it runs in the
interpreter on a real shape, where each load and store adds its unmasked elements to the count. Nothing is typed in.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prism_kernels._backend import _HAS_TRITON, interpreting
from prism_kernels._errors import KernelBackendError, KernelInputError
from prism_kernels._registry import FLOATS
from prism_kernels.testing import Example, examples

ARCHITECTURES = (80, 90, 100)
_TYPES = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.uint8: "*u8",
}
_GLOBAL = re.compile(r"\b(ld|st)\.global(?:\.[\w:]+)*?\.(?:v(\d)\.)?[bfus](\d+)\b")
# Copies to shared memory that bypass the registers: bytes each.
_ASYNC = re.compile(
    r"\bcp\.async\.c[ag]\.shared\.global(?:\.[\w:]+)*\s*\[[^\]]*\],\s*\[[^\]]*\],\s*(0x[0-9a-fA-F]+|\d+)"
)
_LOCAL = re.compile(r"(\d+) bytes spill (?:stores|loads)")


@dataclass(frozen=True)
class KernelReport:
    """What the assembler and the interpreter say about one kernel, dtype, shape and architecture.

    ``spills`` is bytes of spill stores and loads. ``load_bits`` and ``store_bits`` are the width at which most bits
    move; ``load_widths`` and ``store_widths`` count every global access by its width, per-sample scalars included.
    ``bytes`` is what all of the operator's kernels move, ``loaded`` and ``stored`` are this kernel's part.
    """

    op: str
    shape: str
    dtype: str
    arch: str
    registers: int
    spills: int
    shared_bytes: int
    load_bits: int
    store_bits: int
    loaded: int
    stored: int
    bytes: int
    bytes_min: int
    bytes_bar: float
    load_widths: dict[int, int]
    store_widths: dict[int, int]


def check(report: KernelReport) -> list[str]:
    """Bars that a kernel misses: no spills, 128-bit accesses, at most ``bytes_bar`` times the bytes that must move.

    The bar is 1.1 wherever one reading can do; an example with a higher one says why (``testing.Example``).
    """
    found = [f"{report.spills} bytes of spills"] if report.spills else []
    for name, moved in (("load_bits", report.loaded), ("store_bits", report.stored)):
        # A kernel may read or write only a number a program: no width helps there.
        if moved > 0.01 * report.bytes and getattr(report, name) < 128:
            found.append(f"{name} is {getattr(report, name)}, not 128")
    if report.bytes > report.bytes_bar * report.bytes_min:
        found.append(f"moves {report.bytes / report.bytes_min:.2f} times the bytes that it must")
    return found


def compile_kernels(
    ops: tuple[str, ...] = (),
    dtypes: tuple[torch.dtype, ...] = FLOATS,
    architectures: tuple[int, ...] = ARCHITECTURES,
    done: Callable[[KernelReport], None] = lambda _: None,
    large: bool = True,
) -> list[KernelReport]:
    """Compile the named operators (none: all of them) and report on each kernel; no GPU is needed.

    ``large`` as :func:`prism_kernels.testing.examples` has it.

    Raises:
        KernelBackendError: Triton is missing, or imported for its interpreter.
        KernelInputError: an operator is unknown.
    """
    if not _HAS_TRITON:
        raise KernelBackendError("compile: triton is not installed; pip install triton")
    if interpreting():
        raise KernelBackendError("compile: TRITON_INTERPRET=1 is set, expected it unset; unset it and run again")
    chosen = [example for dtype in dtypes for example in examples(dtype, large=large) if not ops or example.op in ops]
    unknown = sorted(set(ops) - {example.op for example in chosen})
    if unknown:
        raise KernelInputError(f"compile: no kernel for {', '.join(unknown)}; leave --op out to see every operator")
    reports = []
    for example in sorted(chosen, key=lambda e: e.op):
        traffic = measure(example)
        for arch in architectures:
            for index in range(len(traffic.launches)):
                reports.append(_report(example, traffic, index, arch))
                done(reports[-1])
    return reports


@dataclass(frozen=True)
class Traffic:
    """Launches of an example, bytes that each loads and stores, and the least that inputs and results could need."""

    launches: list[Any]
    loaded: list[int]
    stored: list[int]
    least: int

    @property
    def moved(self) -> int:
        """Bytes of all launches."""
        return sum(self.loaded) + sum(self.stored)


def measure(example: Example) -> Traffic:
    """Run an example in the interpreter and count its bytes."""
    from prism_kernels._triton._run import counting, recording

    with recording() as launches, counting(launches) as (loaded, stored):
        results = example.launch()
    tensors = [*example.inputs, *results]
    least = sum(t.numel() * t.element_size() for t in tensors if t is not None)
    each = range(1, len(launches) + 1)
    return Traffic(launches, [loaded[i] for i in each], [stored[i] for i in each], least)


def _report(example: Example, traffic: Traffic, index: int, arch: int) -> KernelReport:
    import triton
    from triton.backends.compiler import GPUTarget

    launch = traffic.launches[index]
    compiled = triton.compile(
        _source(launch), target=GPUTarget("cuda", arch, 32), options={"num_warps": launch.num_warps}
    )
    registers, spills = _assemble(compiled.asm["ptx"], arch)
    loads, stores = widths(compiled.asm["ptx"])
    return KernelReport(
        op=example.op,
        shape=example.shape,
        dtype=example.dtype,
        arch=f"sm_{arch}",
        registers=registers,
        spills=spills,
        shared_bytes=compiled.metadata.shared,
        load_bits=_bulk(loads),
        store_bits=_bulk(stores),
        loaded=traffic.loaded[index],
        stored=traffic.stored[index],
        bytes=traffic.moved,
        bytes_min=traffic.least,
        bytes_bar=example.bytes_bar,
        load_widths=loads,
        store_widths=stores,
    )


def _source(launch: Any) -> Any:
    """The specialisation that Triton makes for these arguments: ones are constants, multiples of 16 known to be."""
    from triton.compiler import ASTSource

    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(launch.kernel.params):
        value = launch.arguments[parameter.name]
        special = not parameter.do_not_specialize
        one = special and type(value) is int and value == 1
        if parameter.is_constexpr or value is None or one:
            signature[parameter.name], constants[(index,)] = "constexpr", value
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        else:
            tensor = isinstance(value, torch.Tensor)
            signature[parameter.name] = _TYPES[value.dtype] if tensor else "i32"
            if special and (value.data_ptr() if tensor else value) % 16 == 0:
                attributes[(index,)] = [["tt.divisibility", 16]]
    return ASTSource(fn=launch.kernel, signature=signature, constexprs=constants, attrs=attributes)


def _assemble(ptx: str, arch: int) -> tuple[int, int]:
    """Registers a thread and bytes of spills, from the assembler that Triton itself calls, with its flags."""
    from triton.backends.nvidia.compiler import get_ptxas, sm_arch_from_capability

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        command = [get_ptxas(arch).path, "-v", "--regAllocOptLevel=2", f"--gpu-name={sm_arch_from_capability(arch)}"]
        command += [str(source), "-o", str(Path(folder) / "kernel.cubin")]
        log = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    used = re.search(r"Used (\d+) registers", log)
    if used is None:
        raise KernelBackendError(f"compile: the assembler named no registers for sm_{arch}; report this with its log")
    return int(used.group(1)), sum(int(n) for n in _LOCAL.findall(log))


def widths(ptx: str) -> tuple[dict[int, int], dict[int, int]]:
    """How many global loads and stores there are of each width in bits."""
    found: dict[str, dict[int, int]] = {"ld": {}, "st": {}}
    for kind, lanes, bits in _GLOBAL.findall(ptx):
        width = int(lanes or 1) * int(bits)
        found[kind][width] = found[kind].get(width, 0) + 1
    for size in _ASYNC.findall(ptx):
        width = 8 * int(size, 0)
        found["ld"][width] = found["ld"].get(width, 0) + 1
    return found["ld"], found["st"]


def _bulk(counts: dict[int, int]) -> int:
    return max(counts, key=lambda width: (width * counts[width], width), default=0)
