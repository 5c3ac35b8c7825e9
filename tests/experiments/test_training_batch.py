"""What a step of training sees: which images, as which points, in which pairs, and the loss of a batch."""

from dataclasses import replace

import pytest
import torch

from fmcore import losses, paths
from fmcore.data import digits
from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.run.training_batch import batch_loss, batch_maker, training_images
from fmcore.papers import catalog

DIGITS = digits()
CONFIGURATION = catalog.by_name("digits")
EXACT = catalog.by_name("bertrand2025/digits/cfm")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rows_of(images):
    """The rows of the training split that images are; each digit is there once."""
    same = (DIGITS.train.flatten(1)[None] == images.flatten(1)[:, None]).all(dim=2)
    assert (same.sum(dim=1) >= 1).all()
    return same.double().argmax(dim=1).tolist()


def test_a_part_of_the_split_is_drawn_by_the_seed_and_grows():
    few, more, other = (
        rows_of(training_images(with_overrides(CONFIGURATION, settings), DIGITS))
        for settings in (["train_images=20"], ["train_images=50"], ["train_images=20", "seed=1"])
    )
    assert few == more[:20]
    assert len(set(more)) == 50
    assert few != other
    assert few != list(range(20))
    assert max(more) - min(more) > 750  # from everywhere: digits are sorted by who wrote them


def test_all_images_are_the_split_itself_and_more_are_refused():
    assert training_images(CONFIGURATION, DIGITS) is DIGITS.train
    with pytest.raises(ValueError, match="train_images=2000, and digits has 1500"):
        training_images(with_overrides(CONFIGURATION, ["train_images=2000"]), DIGITS)


def test_pixels_lie_anywhere_in_their_bins_or_in_the_middle():
    batch = DIGITS.train[:200]
    middle = (2 * batch.double() + 1) / 17 - 1
    _, exact = batch_maker(with_overrides(CONFIGURATION, ["dequantize=false"]), DIGITS)(batch, seeded())
    _, anywhere = batch_maker(CONFIGURATION, DIGITS)(batch, seeded())
    torch.testing.assert_close(exact.double(), middle, rtol=0, atol=1e-6)
    off = (anywhere.double() - middle) * 17 / 2  # in bins
    assert off.abs().max() <= 0.5 + 1e-5
    assert off.square().mean() == pytest.approx(1 / 12, rel=0.02)


def test_half_of_the_images_are_mirrored_where_flips_are_on():
    batch = DIGITS.train[:400]
    middle, mirrored = ((2 * x.double() + 1) / 17 - 1 for x in (batch, batch.flip(-1)))
    for settings, low, high in ((["flips=true"], 0.4, 0.6), (["flips=false"], 0, 0)):
        prepare = batch_maker(with_overrides(CONFIGURATION, [*settings, "dequantize=false"]), DIGITS)
        x1 = prepare(batch, seeded())[1].double()
        turned = torch.isclose(x1, mirrored, atol=1e-6).flatten(1).all(dim=1)
        kept = torch.isclose(x1, middle, atol=1e-6).flatten(1).all(dim=1)
        assert (turned | kept).all()
        assert low <= float((turned & ~kept).double().mean()) <= high


def test_optimal_pairs_move_the_noise_and_not_the_images():
    batch = DIGITS.train[:100]
    plain, paired = (
        batch_maker(with_overrides(CONFIGURATION, ["dequantize=false", f"coupling={name}"]), DIGITS)(batch, seeded())
        for name in ("independent", "minibatch_ot")
    )
    assert torch.equal(plain[1], paired[1])
    assert not torch.equal(plain[0], paired[0])
    torch.testing.assert_close(plain[0].flatten().sort().values, paired[0].flatten().sort().values)
    cost = [float((x1 - x0).square().sum()) for x0, x1 in (plain, paired)]
    assert cost[1] < 0.99 * cost[0]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("conditional_flow_matching", paths.rectified()),
        ("noise_prediction", paths.variance_preserving()),
        ("score_matching", paths.variance_preserving()),
        ("score_flow", paths.variance_preserving()),
    ],
)
def test_the_loss_is_that_of_its_name(name, path):
    configuration = with_overrides(CONFIGURATION, [f"loss={name}", f"path={path.name}"])
    batch = torch.randn(2, 6, 1, 8, 8, generator=seeded())

    def model(x, t):
        return 0.3 * x

    found = batch_loss(configuration, DIGITS, DIGITS.train)(model, tuple(batch), seeded(1))
    assert torch.equal(found, getattr(losses, name)(model, path, *batch, generator=seeded(1)))
    others = {"conditional_flow_matching", "noise_prediction", "score_matching", "score_flow"} - {name}
    assert all(not torch.equal(found, getattr(losses, one)(model, path, *batch, generator=seeded(1))) for one in others)


def test_a_bank_holds_the_images_trained_on_and_no_others():
    """Trained on copies of one image, every bank is that image, and the target is the conditional velocity."""
    configuration = replace(EXACT, loss="empirical_flow_matching", bank=4)
    x1 = DIGITS.scaled(DIGITS.train[:1].expand(6, -1, -1, -1))
    x0 = torch.randn(x1.shape, generator=seeded())

    def model(x, t):
        return torch.zeros_like(x)

    one = DIGITS.train[:1].expand(10, -1, -1, -1)
    found = batch_loss(configuration, DIGITS, one)(model, (x0, x1), seeded(1))
    assert float(found) == pytest.approx(float((x1 - x0).square().mean()), rel=1e-5)
    others = batch_loss(configuration, DIGITS, DIGITS.train)(model, (x0, x1), seeded(1))
    assert abs(float(others) - float(found)) > 1e-3


def test_a_source_that_must_be_fitted_is_asked_for():
    configuration = catalog.by_name("lee2025/digits/mixture1")
    with pytest.raises(ValueError, match="distribution=mixture must be fitted first: pass its source"):
        batch_maker(configuration, DIGITS)
