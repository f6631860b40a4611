"""The generator of a check on the engines that were chosen for it once, so that it is gone on with on the same ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from prism_fast.compile.load import Compiled, compile_run
from prism_fast.compile.release import release_networks
from prism_fast.dataset.sealed import Sealed
from prism_fast.errors import InputError
from prism_fast.models.device import gpu_name
from prism_fast.storage.files import read_if_there, replace, writing
from prism_fast.synthesis.synthesizer import Synthesizer
from prism_fast.workers.leases import Leases

Log = Callable[[str], None]


class Chosen(Sealed):
    """``engines.json``: the engines, and a hash of what they were chosen for."""

    chosen_for: str
    engines: dict[str, str]


def on_chosen_engines(
    eager: Synthesizer, path: Path, leases: Leases, log: Log, store: Path | None = None
) -> tuple[Synthesizer, dict[str, str]]:
    """The generator on its engines and their digests by part; whoever comes first chooses for all.

    Where several backends may compute a part, the fastest is a matter of measurement: chosen again, another one could
    win, and every image would have to be made again.

    Args:
        eager: the run, unguided, on eager engines.
        path: where the choice is kept; one that was made for other networks or settings is made again.
        leases: of the folder: one chooses, the others wait.
        log: told which engines are built and used.
        store: where engines are kept.

    Raises:
        EngineError: a named backend cannot do it here.
    """
    if eager.config.engines.backend == "eager":
        return eager, {}
    wanted_for = _chosen_for(eager)

    def found() -> Compiled | None:
        chosen = _read(path)
        if chosen is None or chosen.chosen_for != wanted_for:
            return None
        try:
            return compile_run(eager, chosen.engines, log, store)
        except InputError:  # a library's version or the processor is another one: chosen anew
            return None

    def made() -> Compiled:
        compiled = compile_run(eager, {}, log, store)
        with writing(path):
            replace(path, Chosen(chosen_for=wanted_for, engines=compiled.digests).model_dump_json(indent=1).encode())
        return compiled

    compiled = leases.once("engines", found, made)
    release_networks(compiled.synthesizer, compiled.digests)
    return compiled.synthesizer, compiled.digests


def _read(path: Path) -> Chosen | None:
    data = read_if_there(path)
    try:
        return None if data is None else Chosen.model_validate_json(data)
    except ValidationError:  # damaged: chosen anew
        return None


def _chosen_for(eager: Synthesizer) -> str:
    data = eager.config.model_dump(mode="json", include={"sampling", "engines"})
    del data["sampling"]["device"]
    document = [data, eager.hashes, gpu_name(eager.config.sampling.device)]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
