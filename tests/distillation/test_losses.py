"""Losses of the logits against their papers' formulas, written out in float64 without torch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats
import torch

from prism_fast.distillation.losses import (
    dist_loss,
    dkd_loss,
    hard_label_loss,
    kl_loss,
    mlkd_loss,
    multi_temperature_loss,
    nkd_loss,
)
from prism_fast.distillation.outputs import Labels
from prism_fast.errors import InputError

Floats = npt.NDArray[np.float64]
SHAPES = [(1, 2), (7, 17), (3, 1000)]
TEMPERATURES = (2.0, 3.0, 4.0, 5.0, 6.0)


def softmax(x: Floats) -> Floats:
    e: Floats = np.exp(x - x.max(-1, keepdims=True))
    total: Floats = e.sum(-1, keepdims=True)
    return e / total


def divergence(p: Floats, q: Floats) -> float:
    return float(sum(a * (np.log(a) - np.log(b)) for a, b in zip(p, q, strict=True)))


def kl(s: Floats, t: Floats, temperature: float) -> float:
    rows = [divergence(softmax(b / temperature), softmax(a / temperature)) for a, b in zip(s, t, strict=True)]
    return temperature**2 * float(np.mean(rows))


def standardised(z: Floats) -> Floats:
    return np.stack([(row - row.mean()) / np.sqrt(((row - row.mean()) ** 2).mean()) for row in z])


def dkd_row(s: Floats, t: Floats, label: int, temperature: float, alpha: float, beta: float) -> float:
    p, q = softmax(t / temperature), softmax(s / temperature)
    target = divergence(np.array([p[label], 1 - p[label]]), np.array([q[label], 1 - q[label]]))
    p, q = np.delete(p, label), np.delete(q, label)
    return temperature**2 * (alpha * target + beta * divergence(p / p.sum(), q / q.sum()))


def nkd_row(s: Floats, t: Floats, label: int, temperature: float, gamma: float) -> float:
    target = -softmax(t)[label] * np.log(softmax(s)[label])
    n_t, n_s = (np.delete(softmax(z / temperature), label) for z in (t, s))
    rest = -sum(a / n_t.sum() * np.log(b / n_s.sum()) for a, b in zip(n_t, n_s, strict=True))
    return float(target + gamma * temperature**2 * rest)


def hard_row(s: Floats, label: int, smoothing: float) -> float:
    target = np.full(len(s), smoothing / len(s))
    target[label] += 1 - smoothing
    return float(-(target * np.log(softmax(s))).sum())


def dist(s: Floats, t: Floats, temperature: float, beta: float, gamma: float) -> float:
    a, b = softmax(s / temperature), softmax(t / temperature)
    rows = [scipy.stats.pearsonr(x, y).statistic for x, y in zip(a, b, strict=True)]
    columns = [scipy.stats.pearsonr(x, y).statistic for x, y in zip(a.T, b.T, strict=True)]
    return temperature**2 * float(beta * (1 - np.mean(rows)) + gamma * (1 - np.mean(columns)))


def mlkd(s: Floats, t: Floats, temperatures: tuple[float, ...]) -> float:
    found = []
    for temperature in temperatures:
        q, p = softmax(s / temperature), softmax(t / temperature)
        batch = sum((p[i] @ p[j] - q[i] @ q[j]) ** 2 for i in range(len(p)) for j in range(len(p)))
        between = range(p.shape[1])
        classes = sum((p[:, i] @ p[:, j] - q[:, i] @ q[:, j]) ** 2 for i in between for j in between)
        found.append(kl(s, t, temperature) + batch / len(p) + classes / p.shape[1])
    return float(np.mean(found))


def logits(n: int, classes: int, seed: int) -> torch.Tensor:
    return 4 * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed))


def pair(n: int, classes: int) -> tuple[torch.Tensor, torch.Tensor, Labels]:
    own = torch.arange(n) * 3 % classes
    return logits(n, classes, 1), logits(n, classes, 2), Labels(own)


def mixed(n: int, classes: int) -> Labels:
    share = torch.rand(n, generator=torch.Generator().manual_seed(3))
    return Labels(torch.arange(n) * 3 % classes, torch.arange(n) * 5 % classes, share)


def expected_by_label(row: Callable[[int, int], float], labels: Labels) -> float:
    """Mean over the samples of the share-weighted rows."""
    own = [row(i, int(label)) for i, label in enumerate(labels.own)]
    if labels.other is None or labels.share is None:
        return float(np.mean(own))
    other = [row(i, int(label)) for i, label in enumerate(labels.other)]
    share = labels.share.double().numpy()
    return float(np.mean(share * own + (1 - share) * other))


def agree(found: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], s: Any, t: Any, expected: float) -> None:
    """In float64 to 1e-10, in float32 to 1e-4 of the float64 reference."""
    assert float(found(s.double(), t.double())) == pytest.approx(expected, rel=1e-10, abs=1e-12)
    single = found(s, t)
    assert single.dtype == torch.float32
    assert single.shape == ()
    assert float(single) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("n", "classes"), [*SHAPES, (4, 1)])
@pytest.mark.parametrize("temperature", [1.0, 3.0, 10.0])
def test_kl(n: int, classes: int, temperature: float) -> None:
    s, t, _ = pair(n, classes)
    agree(lambda a, b: kl_loss(a, b, temperature), s, t, kl(s.double().numpy(), t.double().numpy(), temperature))


@pytest.mark.parametrize(("n", "classes"), SHAPES)
def test_standardised_kl(n: int, classes: int) -> None:
    """To 1e-6: the implementation keeps a small variance from zero."""
    s, t, _ = pair(n, classes)
    expected = kl(standardised(s.double().numpy()), standardised(t.double().numpy()), 2.0)
    assert float(kl_loss(s.double(), t.double(), 2.0, True)) == pytest.approx(expected, rel=1e-6, abs=1e-8)
    scaled = kl_loss(s.double() * 7 - 3, t.double() / 5 + 11, 2.0, True)
    assert float(scaled) == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_equal_logits_have_a_gradient_when_standardised() -> None:
    s = torch.full((3, 5), 2.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(kl_loss(s, logits(3, 5, 2), 2.0, True), s)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("n", "classes"), SHAPES)
def test_multi_temperature(n: int, classes: int) -> None:
    s, t, _ = pair(n, classes)
    expected = float(np.mean([kl(s.double().numpy(), t.double().numpy(), one) for one in TEMPERATURES]))
    agree(lambda a, b: multi_temperature_loss(a, b, TEMPERATURES), s, t, expected)


@pytest.mark.parametrize("make", [lambda n, classes: pair(n, classes)[2], mixed])
@pytest.mark.parametrize(("n", "classes"), SHAPES)
class TestOfLabels:
    """Losses that know the label, of plain samples and of mixed ones."""

    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_hard_label(self, n: int, classes: int, make: Any, smoothing: float) -> None:
        (s, t, _), labels = pair(n, classes), make(n, classes)
        expected = expected_by_label(lambda i, label: hard_row(s.double().numpy()[i], label, smoothing), labels)
        agree(lambda a, b: hard_label_loss(a, labels, smoothing), s, t, expected)

    @pytest.mark.parametrize(("temperature", "alpha", "beta"), [(4.0, 1.0, 8.0), (1.0, 0.3, 0.5)])
    def test_dkd(self, n: int, classes: int, make: Any, temperature: float, alpha: float, beta: float) -> None:
        (s, t, _), labels = pair(n, classes), make(n, classes)
        a, b = s.double().numpy(), t.double().numpy()
        expected = expected_by_label(lambda i, label: dkd_row(a[i], b[i], label, temperature, alpha, beta), labels)
        agree(
            lambda x, y: dkd_loss(x, y, labels, temperature=temperature, alpha=alpha, beta=beta),
            s, t, expected,
        )  # fmt: skip

    @pytest.mark.parametrize(("temperature", "gamma"), [(1.0, 1.5), (3.0, 0.5)])
    def test_nkd(self, n: int, classes: int, make: Any, temperature: float, gamma: float) -> None:
        (s, t, _), labels = pair(n, classes), make(n, classes)
        a, b = s.double().numpy(), t.double().numpy()
        expected = expected_by_label(lambda i, label: nkd_row(a[i], b[i], label, temperature, gamma), labels)
        agree(lambda x, y: nkd_loss(x, y, labels, temperature=temperature, gamma=gamma), s, t, expected)


def test_dkd_is_kl_where_the_other_classes_weigh_what_the_teacher_leaves_them() -> None:
    """Equation 6 of its paper, for a single sample."""
    s, t = logits(1, 9, 1).double(), logits(1, 9, 2).double()
    left = 1 - float(torch.softmax(t / 2, 1)[0, 4])
    found = dkd_loss(s, t, Labels(torch.tensor([4])), temperature=2.0, alpha=1.0, beta=left)
    torch.testing.assert_close(found, kl_loss(s, t, 2.0))


@pytest.mark.parametrize("name", ["dkd", "nkd"])
def test_a_teacher_that_is_quite_sure(name: str) -> None:
    """Where 1 - p is zero in float32, it agrees with float64 and the gradient is finite."""
    t, s = torch.zeros(5, 6), logits(5, 6, 1).requires_grad_()
    t[range(5), LABELS.own] = 200.0
    found = ALL[name](s, t)
    torch.testing.assert_close(found, ALL[name](s.double(), t.double()).float(), rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(found, s)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("n", "classes"), [(7, 17), (3, 40), (2, 2)])
@pytest.mark.parametrize(("temperature", "beta", "gamma"), [(1.0, 1.0, 1.0), (4.0, 2.0, 0.5)])
def test_dist(n: int, classes: int, temperature: float, beta: float, gamma: float) -> None:
    s, t, _ = pair(n, classes)
    s, t = s / 2, t / 2
    expected = dist(s.double().numpy(), t.double().numpy(), temperature, beta, gamma)
    found = dist_loss(s.double(), t.double(), temperature=temperature, beta=beta, gamma=gamma)
    assert float(found) == pytest.approx(expected, rel=1e-6)
    single = dist_loss(s, t, temperature=temperature, beta=beta, gamma=gamma)
    assert float(single) == pytest.approx(expected, rel=1e-3)


def test_dist_of_a_single_sample_or_of_flat_predictions_has_a_gradient() -> None:
    for s, t in ((logits(1, 5, 1), logits(1, 5, 2)), (torch.zeros(3, 5), torch.zeros(3, 5))):
        s.requires_grad_()
        (gradient,) = torch.autograd.grad(dist_loss(s, t, temperature=1.0, beta=1.0, gamma=1.0), s)
        assert gradient.isfinite().all()


@pytest.mark.parametrize(("n", "classes"), [(1, 2), (7, 17), (3, 40)])
def test_mlkd(n: int, classes: int) -> None:
    s, t, _ = pair(n, classes)
    expected = mlkd(s.double().numpy(), t.double().numpy(), TEMPERATURES)
    agree(lambda a, b: mlkd_loss(a, b, TEMPERATURES), s, t, expected)


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


LABELS = Labels(torch.tensor([0, 2, 1, 4, 3]))
ALL: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "kl": lambda s, t: kl_loss(s, t, 3.0),
    "standardised": lambda s, t: kl_loss(s, t, 2.0, True),
    "multi_temperature": lambda s, t: multi_temperature_loss(s, t, TEMPERATURES),
    "dkd": lambda s, t: dkd_loss(s, t, LABELS, temperature=4.0, alpha=1.0, beta=8.0),
    "nkd": lambda s, t: nkd_loss(s, t, LABELS, temperature=1.0, gamma=1.5),
    "dist": lambda s, t: dist_loss(s, t, temperature=1.0, beta=1.0, gamma=1.0),
    "mlkd": lambda s, t: mlkd_loss(s, t, TEMPERATURES),
}


@pytest.mark.parametrize("name", ALL)
class TestEach:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_computed_in_float32(self, name: str, dtype: torch.dtype) -> None:
        s, t = logits(5, 9, 1).to(dtype), logits(5, 9, 2).half()
        found = ALL[name](s, t)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, ALL[name](s.float(), t.float()), rtol=0, atol=0)

    def test_gradient_against_differences(self, name: str) -> None:
        s, t = logits(5, 6, 1).double().requires_grad_(), logits(5, 6, 2).double()
        assert torch.autograd.gradcheck(lambda x: ALL[name](x, t), s)

    def test_a_student_that_learns_comes_nearer(self, name: str) -> None:
        s, t = logits(5, 6, 1).requires_grad_(), logits(5, 6, 2)
        optimizer, losses = torch.optim.Adam([s], 0.1), []
        for _ in range(60):
            optimizer.zero_grad()
            losses.append(ALL[name](s, t))
            losses[-1].backward()
            optimizer.step()
        assert losses[-1] < losses[0]

    def test_shapes_are_refused(self, name: str) -> None:
        for s, t in ((torch.zeros(5, 4), torch.zeros(5, 6)), (torch.zeros(5), torch.zeros(5))):
            with pytest.raises(InputError, match=rf"student \[{', '.join(map(str, s.shape))}\]"):
                ALL[name](s, t)
        with pytest.raises(InputError, match=r"student \[0, 4\]"):
            ALL[name](torch.zeros(0, 4), torch.zeros(0, 4))


@pytest.mark.parametrize("name", ["dkd", "nkd"])
def test_one_class_has_no_others(name: str) -> None:
    with pytest.raises(InputError, match="2 classes at least"):
        ALL[name](torch.zeros(5, 1), torch.zeros(5, 1))


def test_labels_that_do_not_fit_are_refused() -> None:
    three = torch.zeros(3, dtype=torch.int64)
    for labels in (Labels(three[:2]), Labels(three, three), Labels(three, three, torch.zeros(2))):
        with pytest.raises(InputError, match=r"own, other and share of \[3\]"):
            hard_label_loss(torch.zeros(3, 4), labels)
    with pytest.raises(InputError, match=r"\[3\]"):
        hard_label_loss(torch.zeros(3), Labels(three))
