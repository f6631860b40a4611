"""What every backend offers: it says why it cannot, builds into a folder, and opens from one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from prism_engines.base import Engine
from prism_engines.graph import Graph
from prism_engines.spec import EngineSpec, Precision


class Backend(Protocol):
    """One way to make a graph fast."""

    name: str
    precisions: tuple[Precision, ...]

    def version(self) -> str:
        """Version of the library that builds, or an empty string when it is not installed."""
        ...

    def target(self, device: str = "cpu") -> str:
        """What kind of device engines built here for ``device`` are for: part of their key."""
        ...

    def reasons(self, spec: EngineSpec) -> list[str]:
        """Why it cannot build ``spec`` here; empty when it can."""
        ...

    def run_reasons(self, spec: EngineSpec) -> list[str]:
        """Why an engine of ``spec`` cannot run here; empty when it can."""
        ...

    def build(self, graph: Graph, spec: EngineSpec, folder: Path) -> None:
        """Write the engine's files into the empty ``folder``.

        Raises:
            EngineBuildError: the library refused; one line with its reason.
        """
        ...

    def open(self, spec: EngineSpec, folder: Path, streams: int = 1) -> Engine:
        """Load an engine that ``build`` wrote onto ``spec.device``; up to ``streams`` threads will run it at once."""
        ...
