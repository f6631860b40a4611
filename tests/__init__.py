"""Tests; run by ``make test``, as many processes as there are cores."""

import os

# Read when torch is loaded. Some tests compute on every core, as the command line does, while the other processes do
# too: threads that spin while they wait for one another made tests of half a second take 25.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
