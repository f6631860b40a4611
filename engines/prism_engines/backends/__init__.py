"""The compiled backends by name."""

from __future__ import annotations

from prism_engines.backends.base import Backend
from prism_engines.errors import EngineInputError


def backends() -> dict[str, Backend]:
    """Every compiled backend, whether or not it can run here."""
    from prism_engines.backends.inductor import InductorBackend
    from prism_engines.backends.onnxruntime import OnnxRuntimeBackend
    from prism_engines.backends.openvino import OpenVinoBackend
    from prism_engines.backends.tensorrt import TensorRtBackend

    known: tuple[Backend, ...] = (
        OpenVinoBackend(),
        InductorBackend(),
        OnnxRuntimeBackend(),
        TensorRtBackend("tensorrt"),
        TensorRtBackend("tensorrt_rtx"),
    )
    return {one.name: one for one in known}


def backend(name: str) -> Backend:
    """The backend called ``name``.

    Raises:
        EngineInputError: there is none; the message lists the names.
    """
    known = backends()
    if name not in known:
        raise EngineInputError(f"backend {name!r} is unknown, expected one of: {', '.join(known)}")
    return known[name]
