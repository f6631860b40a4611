"""One step in this process: ``python -m prism_fast.gpu_check MODULE OPTIONS SECONDS`` prints its finding as JSON.

Whatever libraries print meanwhile goes to standard error. After SECONDS the process says where each of its threads is
and ends, also when a library hangs.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import traceback
from dataclasses import asdict
from importlib import import_module

from prism_fast.gpu_check.finding import Finding, Options, raised


def find(module: str, options: Options) -> Finding:
    """What the step in ``module`` finds; an error is a finding, too."""
    try:
        step = import_module(module)
        if "torch" in sys.modules:  # what computes is set up; nothing is imported for the sake of it
            from prism_fast.process import prepare

            prepare()
        found: Finding = step.check(options)
    except Exception as error:  # whatever a step raises is what it found
        traceback.print_exc()
        return raised(error)
    return found


def main() -> None:
    """Be one step."""
    module, options, seconds = sys.argv[1:]
    answer = os.dup(1)
    os.dup2(2, 1)  # libraries in C print where they like
    faulthandler.enable()
    faulthandler.dump_traceback_later(float(seconds), exit=True)
    finding = find(module, Options(**json.loads(options)))
    os.write(answer, json.dumps(asdict(finding)).encode())


if __name__ == "__main__":
    main()
