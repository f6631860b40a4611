"""Contrast: a student's features should tell which of many samples the teacher looked at."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prism_fast.distillation.losses.inputs import vector_pair
from prism_fast.distillation.outputs import Labels, Outputs
from prism_fast.errors import InputError


def crd_loss(
    anchor: Tensor, positive: Tensor, negatives: Tensor, differs: Tensor, log_scale: Tensor, temperature: float
) -> Tensor:
    """``-log h(a_i, p_i) - sum_k log(1 - h(a_i, n_k))``, mean over i; k over the negatives of another class.

    ``h(a, b) = e / (e + N Z)``, ``e = exp(a . b / temperature)``, N the count of i's negatives and Z a constant that
    stands for the mean of e (the paper's 1/M, once e is divided by its normaliser, as its authors' code does).

    Shapes: anchor and positive (n, d), negatives (k, d), of length 1; differs (n, k) truth values; log_scale = log Z, a
        scalar; the result is a scalar.
    Dtypes: float32 or float64.

    Raises:
        InputError: shapes do not fit.
    Reference: Tian, Krishnan, Isola 2020, Contrastive Representation Distillation, equations 18 and 19.
    """
    if (
        anchor.shape != positive.shape
        or anchor.shape[1:] != negatives.shape[1:]
        or differs.shape
        != (
            len(anchor),
            len(negatives),
        )
    ):
        shapes = [[*one.shape] for one in (anchor, positive, negatives, differs)]
        raise InputError(f"expected anchor and positive (n, d), negatives (k, d), differs (n, k): {shapes}")
    count = differs.sum(1).clamp_min(1).to(anchor.dtype)
    bias = count.log() + log_scale
    near = (anchor * positive).sum(1) / temperature
    far = anchor @ negatives.T / temperature
    rejected = F.logsigmoid(bias[:, None] - far).masked_fill(~differs, 0).sum(1)
    return -(F.logsigmoid(near - bias) + rejected).mean()


class CRDTerm(nn.Module):
    """:func:`crd_loss` both ways, with its embeddings, which learn with the student, and its queues.

    Of the paper: linear embeddings to ``dimensions`` numbers of length 1; both directions (student's anchors among the
    teacher's embeddings, and the reverse) summed; negatives of other classes than the anchor's; Z from the first batch,
    then constant. Ours: the negatives are the last ``negatives`` samples in a queue, not drawn from a memory of the
    whole data set with a momentum, so its size does not grow with the data and no sample index is needed; it begins as
    the memory does, with random directions. Of mixed samples neither class is a negative. Couples the batch with
    earlier ones, and on several ranks each with rank 0's or its own queue, as the trainer exchanges buffers.

    Args:
        dimensions, negatives, temperature: of the embeddings, the queue and h.
        student, teacher: what the two networks give for one picture.

    Raises:
        InputError: features are missing.
    """

    students: Tensor
    teachers: Tensor
    labels: Tensor
    log_scales: Tensor

    def __init__(self, dimensions: int, negatives: int, temperature: float, student: Outputs, teacher: Outputs) -> None:
        super().__init__()
        self.temperature = temperature
        s, t = vector_pair(student.pooled, teacher.pooled)
        self.student, self.teacher = nn.Linear(s.shape[1], dimensions), nn.Linear(t.shape[1], dimensions)
        for name in ("students", "teachers"):
            self.register_buffer(name, F.normalize(torch.randn(negatives, dimensions), dim=1))
        self.register_buffer("labels", torch.full((negatives, 2), -1))  # of nobody
        self.register_buffer("log_scales", torch.full((2,), math.inf))  # not known yet

    def forward(self, student: Outputs, teacher: Outputs, labels: Labels) -> Tensor:
        """The loss; in training mode the batch enters the queues afterwards."""
        features = vector_pair(student.pooled, teacher.pooled)
        kind = self.student.weight.dtype
        s, t = (
            F.normalize(net(x.to(kind)), dim=1) for net, x in zip((self.student, self.teacher), features, strict=True)
        )
        own = torch.stack([labels.own, labels.own if labels.other is None else labels.other], dim=1)
        unlike = [one[:, None] != queued for one in own.unbind(1) for queued in self.labels.unbind(1)]
        differs = unlike[0] & unlike[1] & unlike[2] & unlike[3]
        # The queues change before the backward pass, which needs what they were.
        teachers, students = self.teachers.clone(), self.students.clone()
        self._know_scales(s, t)
        one, two = self.log_scales.clone()
        loss = crd_loss(s, t, teachers, differs, one, self.temperature)
        loss = loss + crd_loss(t, s, students, differs, two, self.temperature)
        if self.training:
            self._enqueue(s, t, own)
        return loss

    @torch.no_grad()
    def _know_scales(self, s: Tensor, t: Tensor) -> None:
        """``log mean exp(a . n / temperature)`` of the first batch, both ways."""
        found = [self._log_mean(s, self.teachers), self._log_mean(t, self.students)]
        self.log_scales.copy_(torch.where(self.log_scales.isfinite(), self.log_scales, torch.stack(found)))

    def _log_mean(self, anchors: Tensor, negatives: Tensor) -> Tensor:
        near = anchors @ negatives.T / self.temperature
        return torch.logsumexp(near, dim=(0, 1)) - math.log(near.numel())

    @torch.no_grad()
    def _enqueue(self, s: Tensor, t: Tensor, own: Tensor) -> None:
        """New ones in front; the oldest fall out. In place, so that ranks that exchange buffers see them.

        A batch that was not finite, which float16 may have and its scaler skips, leaves zeros.
        """
        for queue, new in ((self.students, s.nan_to_num()), (self.teachers, t.nan_to_num()), (self.labels, own)):
            queue.copy_(torch.cat([new, queue])[: len(queue)])
