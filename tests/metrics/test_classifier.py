"""The classifier whose features compare sets of digits."""

import pytest
import torch

from fmcore.data import digits
from fmcore.metrics import Classifier, classifier, frechet_distance, train_classifier


@pytest.fixture(scope="module")
def trained():
    return train_classifier(digits(), seed=0, steps=150)


def test_it_knows_the_digits(trained):
    classifier, accuracy = trained
    data = digits()
    guesses = classifier(data.scaled(data.held_out)).argmax(dim=1)
    assert accuracy == pytest.approx(float((guesses == data.held_out_labels).double().mean()), abs=1e-6)
    assert accuracy > 0.9


def test_its_features_tell_real_digits_from_noise_and_from_one_class(trained):
    classifier, data = trained[0], digits()

    def distance(images):
        return frechet_distance(classifier.features(data.scaled(images)), classifier.features(data.scaled(data.train)))

    noise = torch.randint(17, data.held_out.shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    only_ones = data.held_out[data.held_out_labels == 1]
    assert distance(data.held_out) < 0.2 * distance(only_ones)
    assert distance(data.held_out) < 0.2 * distance(noise)


def test_training_repeats_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    first, again = (train_classifier(digits(), seed=5, steps=3)[0] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_odd_images_are_refused():
    with pytest.raises(ValueError, match="must be even, got 7x8"):
        Classifier((1, 7, 8), 10)


def test_the_recipe_leads_to_the_weights_of_its_version():
    """When this fails, classifiers that were kept are others than today's: raise RECIPE, and put the new numbers here.

    Length and mean of the weights of a classifier of 20 steps, as far as processors agree.
    """
    network, _ = train_classifier(digits(), seed=3, steps=20)
    weights = torch.cat([weight.detach().flatten() for weight in network.parameters()]).double()
    assert classifier.RECIPE == 1
    assert (float(weights.norm()), float(weights.mean())) == pytest.approx((6.8262, 0.0020416), rel=1e-3)
