import numpy as np
import numpy.typing as npt
import pytest
import torch

from prism_fast.distillation.losses import distillation_loss, hard_label_loss, kl_loss
from prism_fast.errors import InputError
from tests.data.toy import config

Floats = npt.NDArray[np.float64]


def softmax(x: Floats) -> Floats:
    e: Floats = np.exp(x - x.max(1, keepdims=True))
    total: Floats = e.sum(1, keepdims=True)
    return e / total


def oracle(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> float:
    p, q = (softmax(x.double().numpy() / temperature) for x in (teacher, student))
    return float(temperature**2 * (p * (np.log(p) - np.log(q))).sum(1).mean())


def logits(n: int, classes: int, seed: int) -> torch.Tensor:
    return 4 * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "classes"), [(1, 2), (7, 17), (3, 1000)])
@pytest.mark.parametrize("temperature", [1.0, 3.0, 10.0])
def test_kl_against_float64(n: int, classes: int, temperature: float) -> None:
    student, teacher = logits(n, classes, 1), logits(n, classes, 2)
    expected = oracle(student, teacher, temperature)
    assert float(kl_loss(student, teacher, temperature)) == pytest.approx(expected, rel=2e-5)
    assert float(kl_loss(student.double(), teacher.double(), temperature)) == pytest.approx(expected, rel=1e-12)


def test_kl_of_half_precision_is_computed_in_float32() -> None:
    student, teacher = logits(5, 9, 1).bfloat16(), logits(5, 9, 2).half()
    loss = kl_loss(student, teacher.float(), 3.0)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(oracle(student.float(), teacher.float(), 3.0), rel=2e-5)


def test_kl_is_zero_and_flat_where_the_student_is_the_teacher() -> None:
    student = logits(4, 6, 1).requires_grad_()
    loss = kl_loss(student, student.detach() + 5, 3.0)
    (gradient,) = torch.autograd.grad(loss, student)
    assert abs(float(loss.detach())) < 1e-5
    assert float(gradient.abs().max()) < 1e-5


def test_kl_gradient_is_that_of_the_paper() -> None:
    """dC/dz = T (q - p), times 1/n: equation 2 of Hinton et al. with the T^2 factor."""
    student, teacher = logits(5, 7, 1).double().requires_grad_(), logits(5, 7, 2).double()
    (gradient,) = torch.autograd.grad(kl_loss(student, teacher, 4.0), student)
    q, p = (torch.softmax(x / 4.0, 1) for x in (student.detach(), teacher))
    torch.testing.assert_close(gradient, 4.0 * (q - p) / 5)


def test_hard_label_against_float64() -> None:
    student, labels = logits(6, 5, 1), torch.tensor([0, 1, 2, 3, 4, 0])
    expected = -np.log(softmax(student.double().numpy()))[range(6), labels].mean()
    assert float(hard_label_loss(student, labels)) == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_sum_weighs_both_terms(weight: float) -> None:
    student, teacher, labels = logits(6, 5, 1), logits(6, 5, 2), torch.arange(6) % 5
    expected = (1 - weight) * kl_loss(student, teacher, 2.0) + weight * hard_label_loss(student, labels)
    found = distillation_loss(student, teacher, labels, config(label_weight=weight, temperature=2.0))
    torch.testing.assert_close(found, expected)


def test_shapes_are_checked() -> None:
    with pytest.raises(InputError, match=r"student \[3, 4\], teacher \[3, 5\]"):
        kl_loss(torch.zeros(3, 4), torch.zeros(3, 5), 1.0)
    with pytest.raises(InputError, match=r"\[3, 4\], \[2\]"):
        hard_label_loss(torch.zeros(3, 4), torch.zeros(2, dtype=torch.int64))
