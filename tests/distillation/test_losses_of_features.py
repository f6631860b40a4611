"""Losses of features against their papers' formulas, written out in float64 without torch."""

import math
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from prism_fast.distillation.losses import attention_loss, crd_loss, fitnet_loss, rkd_loss, simkd_loss
from prism_fast.distillation.losses.crd import CRDTerm
from prism_fast.distillation.losses.fitnet import FitNetTerm
from prism_fast.distillation.losses.simkd import SimKDTerm
from prism_fast.distillation.outputs import Labels, Outputs
from prism_fast.errors import InputError

Floats = npt.NDArray[np.float64]


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def halved(maps: Floats) -> Floats:
    """Means over 2x2 places."""
    n, c, h, w = maps.shape
    out: Floats = maps.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5))
    return out


def huber(a: float, b: float) -> float:
    d = abs(a - b)
    return 0.5 * d * d if d <= 1 else d - 0.5


def angles(x: Floats) -> dict[tuple[int, int, int], float]:
    found = {}
    for i, j, k in permutations(range(len(x)), 3):
        one, two = x[i] - x[j], x[k] - x[j]
        found[i, j, k] = float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))
    return found


def distances(x: Floats) -> dict[tuple[int, int], float]:
    found = {(i, j): float(np.linalg.norm(x[i] - x[j])) for i, j in permutations(range(len(x)), 2)}
    mean = float(np.mean(list(found.values())))
    return {pair: one / mean for pair, one in found.items()}


def rkd(s: Floats, t: Floats, distance: float, angle: float) -> float:
    far_s, far_t, turn_s, turn_t = distances(s), distances(t), angles(s), angles(t)
    far = np.mean([huber(far_s[pair], far_t[pair]) for pair in far_s])
    turn = np.mean([huber(turn_s[one], turn_t[one]) for one in turn_s])
    return float(distance * far + angle * turn)


def crd(a: Floats, p: Floats, n: Floats, differs: Sequence[Sequence[bool]], z: float, temperature: float) -> float:
    total = 0.0
    for i in range(len(a)):
        others = [k for k in range(len(n)) if differs[i][k]]
        noise = len(others) * z
        near = math.exp(a[i] @ p[i] / temperature)
        total -= math.log(near / (near + noise))
        for k in others:
            far = math.exp(a[i] @ n[k] / temperature)
            total -= math.log(1 - far / (far + noise))
    return total / len(a)


def single(found: torch.Tensor, expected: float) -> None:
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_fitnet() -> None:
    s, t = drawn(3, 5, 4, 6, seed=1), drawn(3, 5, 4, 6, seed=2)
    expected = 0.5 * ((s.numpy() - t.numpy()) ** 2).mean()
    assert float(fitnet_loss(s, t)) == pytest.approx(expected, rel=1e-12)
    single(fitnet_loss(s.float(), t.half().float()), expected)


def test_maps_of_two_sizes_are_averaged_to_the_smaller() -> None:
    s, t = drawn(3, 5, 4, 6, seed=1), drawn(3, 5, 2, 3, seed=2)
    expected = 0.5 * ((halved(s.numpy()) - t.numpy()) ** 2).mean()
    assert float(fitnet_loss(s, t)) == pytest.approx(expected, rel=1e-12)
    assert float(fitnet_loss(t, s)) == pytest.approx(expected, rel=1e-12)
    assert float(simkd_loss(s, t)) == pytest.approx(2 * expected, rel=1e-12)


def attention(pairs: Sequence[tuple[Floats, Floats]]) -> float:
    total = 0.0
    for s, t in pairs:
        rows = []
        for one, two in zip(s, t, strict=True):
            q_s, q_t = ((x**2).sum(0).ravel() for x in (one, two))
            rows.append((q_s / np.linalg.norm(q_s) - q_t / np.linalg.norm(q_t)) ** 2)
        total += float(np.mean(rows))
    return total


def test_attention() -> None:
    s, t = (
        [drawn(3, 5, 4, 6, seed=1), drawn(3, 2, 1, 3, seed=2)],
        [drawn(3, 7, 4, 6, seed=3), drawn(3, 9, 1, 3, seed=4)],
    )
    expected = attention([(a.numpy(), b.numpy()) for a, b in zip(s, t, strict=True)])
    assert float(attention_loss(s, t)) == pytest.approx(expected, rel=1e-12)
    single(attention_loss([x.float() for x in s], [x.float() for x in t]), expected)
    with pytest.raises(InputError, match="2 and 1"):
        attention_loss(s, t[:1])


@pytest.mark.parametrize("n", [3, 6])
def test_rkd(n: int) -> None:
    s, t = drawn(n, 4, seed=1), 3 * drawn(n, 7, seed=2)
    for distance, angle in ((25.0, 50.0), (25.0, 0.0), (0.0, 50.0)):
        expected = rkd(s.numpy(), t.numpy(), distance, angle)
        assert float(rkd_loss(s, t, distance=distance, angle=angle)) == pytest.approx(expected, rel=1e-10)
        single(rkd_loss(s.float(), t.float(), distance=distance, angle=angle), expected)
    assert float(rkd_loss(5 * t + 2, t, distance=25.0, angle=50.0)) == pytest.approx(0, abs=1e-12)


def test_rkd_of_equal_samples_has_a_gradient_within_reason() -> None:
    s, t = drawn(5, 4, seed=1).float(), drawn(5, 7, seed=2).float()
    s[1] = s[0]
    for student in (s, torch.zeros(5, 4)):
        student.requires_grad_()
        (gradient,) = torch.autograd.grad(rkd_loss(student, t, distance=25.0, angle=50.0), student)
        assert gradient.isfinite().all()
    with pytest.raises(InputError, match="2 samples"):
        rkd_loss(s[:2], t[:2], distance=25.0, angle=50.0)
    with pytest.raises(InputError, match="Featured"):
        rkd_loss(None, t, distance=25.0, angle=50.0)


def directions(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(drawn(n, d, seed=seed), dim=1)


def test_crd() -> None:
    a, p, n = (directions(*shape) for shape in ((4, 6, 1), (4, 6, 2), (9, 6, 3)))
    differs = torch.arange(36).reshape(4, 9) % 3 != 0
    differs[2] = False  # a batch of one class: nothing to tell apart, no error
    for z, temperature in ((2.5, 0.07), (1.0, 0.5)):
        found = crd_loss(a, p, n, differs, torch.tensor(math.log(z)).double(), temperature)
        rows = [i for i in range(4) if i != 2]
        expected = crd(a[rows].numpy(), p[rows].numpy(), n.numpy(), differs[rows].tolist(), z, temperature) * 3 / 4
        near = math.exp(float(a[2] @ p[2]) / temperature)
        expected -= math.log(near / (near + z)) / 4
        assert float(found) == pytest.approx(expected, rel=1e-6)
        args = (a.float(), p.float(), n.float(), differs, torch.tensor(math.log(z)), temperature)
        single(crd_loss(*args), expected)
    with pytest.raises(InputError, match=r"\[4, 6\], \[4, 6\], \[9, 6\], \[9, 4\]"):
        crd_loss(a, p, n, differs.T, torch.zeros(()), 0.07)


def outputs(n: int, channels: int, seed: int, pooled: torch.Tensor | None = None) -> Outputs:
    maps = drawn(n, channels, 2, 2, seed=seed).float()
    return Outputs(
        torch.zeros(n, 5), (drawn(n, 3, 4, 4, seed=seed).float(), maps), maps.mean((2, 3)) if pooled is None else pooled
    )


def made_crd(negatives: int = 10) -> CRDTerm:
    torch.manual_seed(0)
    return CRDTerm(4, negatives, 0.07, outputs(1, 6, 1), outputs(1, 8, 2))


def test_crds_queue_is_the_last_samples_newest_first() -> None:
    term = made_crd()
    before = term.teachers.clone()
    first, second = (Labels(torch.tensor(x)) for x in ([0, 1, 2, 3], [4, 0, 1, 2]))
    for labels, seed in ((first, 5), (second, 6)):
        term(outputs(4, 6, seed), outputs(4, 8, seed + 10), labels)
    new = [torch.nn.functional.normalize(term.teacher(outputs(4, 8, seed).pooled), dim=1) for seed in (16, 15)]
    torch.testing.assert_close(term.teachers, torch.cat([*new, before])[:10].detach())
    assert term.labels[:, 0].tolist() == [4, 0, 1, 2, 0, 1, 2, 3, -1, -1]
    kept = term.teachers.clone()
    term.eval()(outputs(4, 6, 7), outputs(4, 8, 7), first)
    assert torch.equal(term.teachers, kept)
    term.train()(outputs(13, 6, 7), outputs(13, 8, 7), Labels(torch.arange(13)))
    assert term.labels[:, 0].tolist() == list(range(10))


@torch.no_grad()
def embedded(net: torch.nn.Linear, of: Outputs) -> Floats:
    assert of.pooled is not None
    found: Floats = torch.nn.functional.normalize(net(of.pooled.double()), dim=1).numpy()
    return found


def test_crd_is_its_formula_in_both_directions() -> None:
    term = made_crd().double()
    s, t = outputs(4, 6, 1), outputs(4, 8, 2)
    students, teachers = (x.clone().numpy() for x in (term.students, term.teachers))
    a, b = embedded(term.student, s), embedded(term.teacher, t)
    all_differ = [[True] * 10] * 4
    scales = [float(np.exp(x @ queue.T / 0.07).mean()) for x, queue in ((a, teachers), (b, students))]
    expected = crd(a, b, teachers, all_differ, scales[0], 0.07) + crd(b, a, students, all_differ, scales[1], 0.07)
    found = term(s, t, Labels(torch.tensor([0, 1, 2, 3])))
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)
    term(outputs(4, 6, 3), outputs(4, 8, 4), Labels(torch.tensor([0, 1, 2, 3])))
    np.testing.assert_allclose(term.log_scales.exp(), scales, rtol=1e-5)


def test_crd_leaves_out_negatives_of_either_label() -> None:
    """With a queue of samples that share a class with every anchor, nothing but the positive counts."""
    term, n = made_crd(4), 4
    own, other = torch.tensor([0, 0, 0, 0]), torch.tensor([1, 1, 1, 1])
    term(outputs(n, 6, 1), outputs(n, 8, 2), Labels(own, other, torch.full((n,), 0.5)))
    with torch.no_grad():
        only = term.eval()(outputs(n, 6, 3), outputs(n, 8, 4), Labels(other))
        term.teachers.neg_(), term.students.neg_()
        assert torch.equal(term(outputs(n, 6, 3), outputs(n, 8, 4), Labels(other)), only)
        assert not torch.equal(term(outputs(n, 6, 3), outputs(n, 8, 4), Labels(other + 1)), only)


def test_crd_goes_on_exactly_from_its_state_and_learns() -> None:
    torch.manual_seed(1)
    student = torch.nn.Linear(8, 6)
    term = made_crd(32)
    optimizer = torch.optim.Adam([*student.parameters(), *term.parameters()], 1e-2)
    losses = []
    for step in range(60):
        t = outputs(8, 8, step)
        optimizer.zero_grad()
        loss = term(Outputs(t.logits, (), student(t.pooled)), t, Labels(torch.arange(8)))
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert torch.stack(losses[-10:]).mean() < 0.8 * torch.stack(losses[:10]).mean()
    other = made_crd(32)
    other.load_state_dict(term.state_dict())
    given = outputs(8, 6, 99), outputs(8, 8, 99), Labels(torch.arange(8))
    for _ in range(2):
        assert torch.equal(term(*given), other(*given))


def test_a_batch_that_is_not_finite_does_not_stay_in_crds_queue() -> None:
    term = made_crd()
    broken = Outputs(torch.zeros(4, 5), (), torch.full((4, 6), torch.nan))
    assert not term(broken, outputs(4, 8, 2), Labels(torch.arange(4))).isfinite()
    for _ in range(2):
        assert term(outputs(4, 6, 3), outputs(4, 8, 4), Labels(torch.arange(4))).isfinite()


def test_fitnets_regressor_learns_and_its_layer_counts_from_the_last() -> None:
    s, t = outputs(3, 6, 1), outputs(3, 8, 2)
    torch.manual_seed(0)
    for layer, channels in ((0, (6, 8)), (1, (3, 3))):
        term = FitNetTerm(layer, s, t)
        assert term.regressor.weight.shape == (channels[1], channels[0], 1, 1)
        term(s, t, Labels(torch.zeros(3))).backward()
        assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in term.parameters())
    with pytest.raises(InputError, match="the student has 2"):
        FitNetTerm(2, s, t)


def test_simkd_compares_the_map_only_where_it_is_what_the_classifier_sees() -> None:
    s, t, labels = outputs(3, 6, 1), outputs(3, 6, 2), Labels(torch.zeros(3))
    of_maps = ((s.maps[-1] - t.maps[-1]) ** 2).mean()
    torch.testing.assert_close(SimKDTerm(s, t)(s, t, labels), of_maps)
    token = outputs(3, 6, 2, pooled=drawn(3, 6, seed=3).float())
    assert s.pooled is not None
    assert t.pooled is not None
    assert token.pooled is not None
    torch.testing.assert_close(SimKDTerm(s, t, "vector")(s, t, labels), ((s.pooled - t.pooled) ** 2).mean())
    torch.testing.assert_close(SimKDTerm(s, token)(s, token, labels), ((s.pooled - token.pooled) ** 2).mean())
    with pytest.raises(InputError, match=r"has 6, the teacher 8; .*student_from or inherit"):
        SimKDTerm(s, outputs(3, 8, 2))
    with pytest.raises(InputError, match="has 6, the teacher 8"):
        simkd_loss(s.maps[-1], outputs(3, 8, 2).maps[-1])


def test_shapes_that_are_no_features_are_refused() -> None:
    maps, vectors = torch.zeros(3, 5, 2, 2), torch.zeros(3, 5)
    for s, t in ((maps, vectors), (maps, maps[:2]), (maps, maps[:, :4])):
        with pytest.raises(InputError, match=r"student \[3, 5, 2, 2\]"):
            fitnet_loss(s, t)
    for other in (vectors[:2], maps):
        with pytest.raises(InputError, match=r"student \[3, 5\]"):
            rkd_loss(vectors, other, distance=1.0, angle=1.0)
    with pytest.raises(InputError, match=r"student \[3, 5, 2, 2\]"):
        attention_loss([maps], [vectors])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    s, t = drawn(4, 5, 2, 2, seed=1).to(dtype), drawn(4, 5, 2, 2, seed=2).to(dtype)
    a, b = s.mean((2, 3)), t.mean((2, 3))
    pairs = [
        (fitnet_loss(s, t), fitnet_loss(s.float(), t.float())),
        (simkd_loss(s, t), simkd_loss(s.float(), t.float())),
        (attention_loss([s], [t]), attention_loss([s.float()], [t.float()])),
        (rkd_loss(a, b, distance=1.0, angle=1.0), rkd_loss(a.float(), b.float(), distance=1.0, angle=1.0)),
    ]
    for half, full in pairs:
        torch.testing.assert_close(half, full, rtol=0, atol=0)


def test_gradients_against_differences() -> None:
    s, t = drawn(4, 3, 2, 2, seed=1).requires_grad_(), drawn(4, 3, 2, 2, seed=2)
    assert torch.autograd.gradcheck(lambda x: fitnet_loss(x, t), s)
    assert torch.autograd.gradcheck(lambda x: attention_loss([x], [t]), s)
    assert torch.autograd.gradcheck(lambda x: simkd_loss(x, t), s)
    vectors = drawn(4, 3, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rkd_loss(x, t.mean((2, 3)), distance=25.0, angle=50.0), vectors)
    a, n, differs = directions(4, 3, 5).requires_grad_(), directions(6, 3, 6), torch.ones(4, 6, dtype=torch.bool)
    assert torch.autograd.gradcheck(
        lambda x: crd_loss(x, directions(4, 3, 7), n, differs, torch.zeros(()).double(), 0.5), a
    )
