"""Which schedulers of diffusers have a noise schedule that is honoured here, and with which settings.

Of a scheduler only the noise levels are used: betas, the spacing of timesteps, its offset, the zero terminal SNR and
what the network predicts. How it steps is ours to choose (``sampling.solver``), and every solver's last step ends at
the clean latents, whatever ``set_alpha_to_one`` and ``final_sigmas_type`` say. Whatever else would change the levels or
the predictions is refused by name.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from prism_fast.errors import DataError
from prism_fast.models.json_object import read_object

KNOWN = (
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
)
PREDICTIONS = ("epsilon", "v_prediction")
#: A scheduler computes each of its noise levels while it is loaded; published ones have a thousand.
MOST_LEVELS = 100_000
_BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
#: Settings with the values that change nothing; looked at where the scheduler's class knows them.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "use_karras_sigmas": (False, None),
    "use_exponential_sigmas": (False, None),
    "use_beta_sigmas": (False, None),
    "use_lu_lambdas": (False, None),
    "use_flow_sigmas": (False, None),
    "clip_sample": (False, None),
    "thresholding": (False, None),
    "interpolation_type": ("linear", None),
    "timestep_type": ("discrete", None),
    "sigma_min": (None,),
    "sigma_max": (None,),
    "lambda_min_clipped": (float("-inf"), None),
    "timestep_spacing": ("leading", "trailing", "linspace"),
}


def require_scheduler_class(path: Path, class_name: str) -> None:
    """Refuse a scheduler of another kind of noise (of EDM, flow matching, consistency models) before it is loaded.

    ``class_name`` is what the model's index says, and ``scheduler_config.json`` must not say something else.

    Raises:
        DataError: it is none of :data:`KNOWN`, or its number of noise levels is none.
    """
    file = path / "scheduler" / "scheduler_config.json"
    try:
        document = read_object(file)
    except FileNotFoundError as error:
        raise DataError(f"{path}/scheduler cannot be loaded: it holds no {file.name}") from error
    written, levels = document.get("_class_name", class_name), document.get("num_train_timesteps", 1000)
    for name in (class_name, written):
        if name not in KNOWN:
            raise DataError(
                f"{path}/scheduler is a {name}, whose noise schedule is not known here; expected a model of "
                "DDIMScheduler's kind (betas, epsilon or v_prediction)"
            )
    if type(levels) is not int or not 1 <= levels <= MOST_LEVELS:
        raise DataError(
            f"{path}/scheduler has num_train_timesteps = {levels!r}; expected a whole number from 1 to {MOST_LEVELS}"
        )


def require_schedule(path: Path, scheduler: Any) -> None:
    """Refuse settings that would change the noise levels or the predictions and are not followed here.

    Raises:
        DataError: there is one; the message names it.
    """
    config, where = scheduler.config, f"{path}/scheduler"
    prediction = config.get("prediction_type")
    if prediction not in PREDICTIONS:
        raise DataError(f"{where} predicts {prediction!r}; supported: {', '.join(PREDICTIONS)}")
    known = inspect.signature(type(scheduler).__init__).parameters
    for key, neutral in _NEUTRAL.items():
        if key in known and key in config and config[key] not in neutral:
            raise DataError(
                f"{where} has {key} = {config[key]!r}, which is not followed here; if the model works with "
                f"{neutral[0]!r}, set that in scheduler_config.json"
            )
    if config.get("trained_betas") is None and config.get("beta_schedule") not in _BETAS:
        raise DataError(
            f"{where} has beta_schedule = {config.get('beta_schedule')!r}; expected one of {', '.join(_BETAS)}, or "
            "trained_betas"
        )
