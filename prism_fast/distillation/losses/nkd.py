"""Soft targets, normalised among the classes that are no label."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from prism_fast.distillation.losses.dkd import log_others
from prism_fast.distillation.losses.inputs import is_label, logit_pair, over_labels
from prism_fast.distillation.outputs import Labels


def nkd_loss(student: Tensor, teacher: Tensor, labels: Labels, *, temperature: float, gamma: float) -> Tensor:
    """``-p^T_label log p^S_label - gamma * T^2 * sum_(c != label) n^T_c log n^S_c``, mean over the batch.

    ``p`` is the plain softmax, ``n`` the softmax at temperature T over the classes that are no label. The second term
    holds the teacher's entropy, so that equal networks have a loss above zero. The paper adds it to cross-entropy with
    the label: the term hard_label. Of mixed samples: by share, of both labels, which is ours.

    Shapes: student and teacher (n, classes), two classes at least; labels (n,); the result is a scalar.
    Dtypes: any floating; computed in float32 (float64 stays float64); labels int64.

    Raises:
        InputError: shapes do not fit.
    Reference: Yang et al. 2023, From Knowledge Distillation to Self-Knowledge Distillation, the equation of NKD; gamma
        1.5 and T 1 are those of ImageNet.
    """
    student, teacher = logit_pair(student, teacher, least_classes=2)
    log_s, log_t = F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1)

    def each(own: Tensor) -> Tensor:
        label = own[:, None]
        target = -(log_t.gather(1, label).exp() * log_s.gather(1, label)).squeeze(1)
        mask = is_label(own, student.shape[1])
        n_s, n_t = log_others(student / temperature, mask), log_others(teacher / temperature, mask)
        return target - gamma * temperature**2 * (n_t.exp() * n_s).sum(1)

    return over_labels(labels, len(student), each)
