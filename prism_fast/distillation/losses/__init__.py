"""Distillation losses, one a file, and their weighted sum."""

from prism_fast.distillation.losses.attention import attention_loss
from prism_fast.distillation.losses.combined import DistillationLoss, make_loss
from prism_fast.distillation.losses.crd import crd_loss
from prism_fast.distillation.losses.dist import dist_loss
from prism_fast.distillation.losses.dkd import dkd_loss
from prism_fast.distillation.losses.features import Featured
from prism_fast.distillation.losses.fitnet import fitnet_loss
from prism_fast.distillation.losses.hard_label import hard_label_loss
from prism_fast.distillation.losses.kl import kl_loss
from prism_fast.distillation.losses.mlkd import mlkd_loss
from prism_fast.distillation.losses.multi_temperature import multi_temperature_loss
from prism_fast.distillation.losses.nkd import nkd_loss
from prism_fast.distillation.losses.rkd import rkd_loss
from prism_fast.distillation.losses.simkd import simkd_loss

__all__ = [
    "DistillationLoss",
    "Featured",
    "attention_loss",
    "crd_loss",
    "dist_loss",
    "dkd_loss",
    "fitnet_loss",
    "hard_label_loss",
    "kl_loss",
    "make_loss",
    "mlkd_loss",
    "multi_temperature_loss",
    "nkd_loss",
    "rkd_loss",
    "simkd_loss",
]
