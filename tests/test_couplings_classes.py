"""Labels: a class-conditional model must be trained on the source that it samples from."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import kstest

from fmcore.couplings import MinibatchOT
from tests.analytic import seeded

SINKHORN = MinibatchOT("sinkhorn", 0.3)


def paired_batches(couple, use_labels, batches=40, size=64):
    """Two classes of points around (-2, 0) and (2, 0): all labels, x0 and x1 of many batches."""
    g, parts = seeded(0), []
    for _ in range(batches):
        labels = torch.randint(0, 2, (size,), generator=g)
        x1 = torch.tensor([[-2.0, 0.0], [2.0, 0.0]])[labels] + 0.5 * torch.randn(size, 2, generator=g)
        x0 = torch.randn(size, 2, generator=g)
        parts.append((labels, *couple(x0, x1, labels if use_labels else None, generator=g)))
    return (torch.cat(part) for part in zip(*parts, strict=True))


@pytest.mark.parametrize("couple", [MinibatchOT(), SINKHORN], ids=["exact", "sinkhorn"])
def test_the_source_given_the_class_is_the_source(couple):
    labels, x0, _ = paired_batches(couple, use_labels=True)
    for label in (0, 1):
        mine = x0[labels == label]
        error = 1 / len(mine) ** 0.5
        assert (mine.mean(dim=0).abs() < 4 * error).all()
        assert ((torch.cov(mine.T) - torch.eye(2)).abs() < 6 * error).all()
        if couple is not SINKHORN:  # whose draws repeat samples: they are not independent
            for axis in range(2):
                assert kstest(mine[:, axis].numpy(), "norm").pvalue > 1e-3


def test_pairing_across_classes_moves_the_source():
    """By how much: each class gets its half of the noise, whose mean is sqrt(2 / pi) = 0.80 away from zero."""
    labels, x0, _ = paired_batches(MinibatchOT(), use_labels=False)
    means = [float(x0[labels == label, 0].mean()) for label in (0, 1)]
    assert means == pytest.approx([-0.8, 0.8], abs=0.05)
    assert kstest(x0[labels == 1, 0].numpy(), "norm").pvalue < 1e-12


def test_pairing_within_classes_still_lowers_the_cost():
    cost = {}
    for name, couple, use_labels in (
        ("independent", lambda x0, x1, labels, generator: (x0, x1), False),
        ("within", MinibatchOT(), True),
        ("across", MinibatchOT(), False),
    ):
        _, x0, x1 = paired_batches(couple, use_labels)
        cost[name] = float(((x1 - x0) ** 2).sum(dim=1).mean())
    assert cost["across"] < cost["within"] < 0.8 * cost["independent"]


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.int32])
def test_labels_of_any_integer_type_group_alike(dtype):
    x0, x1 = torch.randn(2, 20, 3, generator=seeded(1))
    labels = torch.randint(0, 4, (20,), generator=seeded(2))
    assert torch.equal(MinibatchOT()(x0, x1, labels.to(dtype))[0], MinibatchOT()(x0, x1, labels)[0])


def test_one_class_is_no_class_and_classes_of_one_are_independent():
    x0, x1 = torch.randn(2, 20, 3, generator=seeded(3))
    assert torch.equal(MinibatchOT()(x0, x1, torch.zeros(20, dtype=torch.int64))[0], MinibatchOT()(x0, x1)[0])
    assert torch.equal(MinibatchOT()(x0, x1, torch.arange(20))[0], x0)
