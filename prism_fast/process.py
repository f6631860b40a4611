"""What a process of ours sets up before it computes: threads, and the silence of libraries."""

from __future__ import annotations

import logging
import os


def prepare() -> None:
    """Let torch use every core that this process may use, and keep libraries from printing while they load.

    ``OMP_NUM_THREADS`` asks for fewer. The number of threads can change the last bits of an image: the command line and
    the Python API use the same.
    """
    import diffusers.utils.logging as diffusers_logging
    import torch
    import transformers.utils.logging as transformers_logging

    # torch counts the machine's cores; containers restrict which of them this process may use.
    torch.set_num_threads(threads())
    # The same bytes each time: of cuDNN's algorithms, those that add in one order.
    torch.backends.cudnn.deterministic = True
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    logging.captureWarnings(True)


def threads() -> int:
    """The cores that this process may use, or ``OMP_NUM_THREADS`` when that is fewer."""
    cores, asked = len(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS", "").strip()
    return min(int(asked), cores) if asked.isascii() and asked.isdigit() and int(asked) > 0 else cores
