"""A worker gives back what its engines have taken over, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from prism_fast.compile.load import compile_run
from prism_fast.compile.release import release_networks
from prism_fast.config import RunConfig, load_config
from prism_fast.dataset.plan import build_plan
from prism_fast.synthesis.synthesizer import Synthesizer
from tests.compile.conftest import NAMES
from tests.tiny import make_light_decoder, write_config


def networks(run: Synthesizer) -> dict[str, nn.Module]:
    model = run.model
    return {"text": model.text_encoder, "unet": model.unet, "vae": model.vae, "teacher": run.teacher.net}


def released(run: Synthesizer) -> set[str]:
    return {name for name, one in networks(run).items() if all(p.is_meta for p in one.parameters())}


def test_a_run_on_engines_needs_no_network(config: RunConfig, warm: Path) -> None:
    run = compile_run(Synthesizer.load(config), {}, print, warm).synthesizer
    rows = build_plan(config, 2)
    before = run.make(rows)
    release_networks(run, NAMES)
    assert released(run) == {"text", "unet", "vae", "teacher"}
    after = run.make(rows)
    assert all((a.image == b.image).all() for a, b in zip(before.samples, after.samples, strict=True))
    assert run.unguided().make(rows).quarantined == ()


@pytest.mark.parametrize(
    ("settings", "engines", "gone"),
    [
        ([], set(), set()),
        ([], {"unet", "decoder", "teacher"}, {"unet"}),
        ([], {"decoder", "teacher", "energy_gradient"}, {"vae", "teacher"}),
        (["guidance.enabled=false"], {"decoder", "teacher"}, {"vae", "teacher"}),
        (["sampling.reuse_every=2"], {"unet"}, set()),
        (["sampling.reuse_every=2"], {"unet_deep", "unet_shallow"}, {"unet"}),
    ],
)
def test_a_network_stays_while_a_part_of_it_is_eager(
    settings: list[str], engines: set[str], gone: set[str], tmp_path: Path
) -> None:
    run = Synthesizer.load(load_config(str(write_config(tmp_path)), settings))
    release_networks(run, engines)
    assert released(run) == gone


def test_the_small_decoder_goes_with_the_gradient(tmp_path: Path) -> None:
    given = [f"models.light_decoder={make_light_decoder(tmp_path / 'light')}", "guidance.decoder=light"]
    run = Synthesizer.load(load_config(str(write_config(tmp_path)), given))
    assert run.light_decoder is not None
    release_networks(run, {"decoder"})
    assert released(run) == {"vae"}
    assert not next(run.light_decoder.parameters()).is_meta
    release_networks(run, {"energy_gradient"})
    assert next(run.light_decoder.parameters()).is_meta
