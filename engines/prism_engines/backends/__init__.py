"""The compiled backends by name."""

from __future__ import annotations

from pathlib import Path

from prism_engines.backends.base import Backend
from prism_engines.errors import EngineInputError


def backends(cache: Path | None = None) -> dict[str, Backend]:
    """Every compiled backend, whether or not it can run here.

    Args:
        cache: where they keep what makes the next build faster; nothing is kept when not given.
    """
    from prism_engines.backends.inductor import InductorBackend
    from prism_engines.backends.onnxruntime import OnnxRuntimeBackend
    from prism_engines.backends.openvino import OpenVinoBackend
    from prism_engines.backends.tensorrt import TensorRtBackend

    known: tuple[Backend, ...] = (
        OpenVinoBackend(),
        InductorBackend(),
        OnnxRuntimeBackend(),
        TensorRtBackend("tensorrt", cache=cache),
        TensorRtBackend("tensorrt_rtx"),
    )
    return {one.name: one for one in known}


def backend(name: str, cache: Path | None = None) -> Backend:
    """The backend called ``name``; ``cache`` as in :func:`backends`.

    Raises:
        EngineInputError: there is none; the message lists the names.
    """
    known = backends(cache)
    if name not in known:
        raise EngineInputError(f"backend {name!r} is unknown, expected one of: {', '.join(known)}")
    return known[name]
