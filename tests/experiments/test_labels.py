"""Networks that are told the class of an image: from the batch to the record, and samples of one class."""

import pytest
import torch

from fmcore.cli import main
from fmcore.data import digits
from fmcore.experiments import sealed
from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.evaluate.evaluation import evaluate_run
from fmcore.experiments.evaluate.likelihoods import GIVEN
from fmcore.experiments.run import pretrained
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.network import build_network
from fmcore.experiments.run.samples import classes_asked, samples
from fmcore.experiments.run.train import train_run
from fmcore.experiments.run.training_batch import batch_loss, batch_maker, training_images, training_rows
from fmcore.papers import catalog
from tests.experiments.made_run import MadeRun

DIGITS = digits()
LABELLED = with_overrides(catalog.by_name("digits"), ["labels=true"])
SMALL = ["labels=true", "channels=8", "attention=", "steps=3", "batch=16", "warmup=1", "method=euler", "solver_steps=2"]
SMALL += ["set_images=30", "generated_sets=2", "likelihood_images=4", "classifier_steps=20", "nearest_images=0"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_batch_has_the_classes_of_its_images_but_for_those_that_are_kept_back():
    rows = training_rows(LABELLED, DIGITS, DIGITS.train)
    images, labels = rows[torch.arange(1500)]
    assert torch.equal(labels, DIGITS.train_labels)
    *_, told = batch_maker(LABELLED, DIGITS)((images, labels), seeded())
    kept_back = told == 10
    assert torch.equal(told[~kept_back], labels[~kept_back])
    assert 0.07 < float(kept_back.double().mean()) < 0.13
    *_, told = batch_maker(with_overrides(LABELLED, ["label_dropout=0"]), DIGITS)((images, labels), seeded())
    assert torch.equal(told, labels)


def test_a_part_of_the_images_comes_with_its_own_classes():
    row = with_overrides(LABELLED, ["train_images=40"])
    images, labels = training_rows(row, DIGITS, training_images(row, DIGITS))[torch.arange(40)]
    for image, label in zip(images, labels, strict=True):
        [place, *_] = torch.nonzero((DIGITS.train == image).flatten(1).all(dim=1)).flatten().tolist()
        assert DIGITS.train_labels[place] == label


def test_transport_pairs_within_classes():
    row = with_overrides(LABELLED, ["coupling=minibatch_ot", "dequantize=false", "label_dropout=0"])
    images, labels = DIGITS.train[:64], DIGITS.train_labels[:64]
    x0, x1, _ = batch_maker(row, DIGITS)((images, labels), seeded())
    noise, *_ = batch_maker(with_overrides(row, ["coupling=independent"]), DIGITS)((images, labels), seeded())
    from_where = (x0.flatten(1)[:, None] == noise.flatten(1)[None]).all(dim=2).double().argmax(dim=1)
    assert torch.equal(labels[from_where], labels)
    assert not torch.equal(from_where, torch.arange(64))
    torch.testing.assert_close(x1, DIGITS.scaled(images))


def test_the_loss_tells_the_network_what_the_batch_says():
    told = []

    def network(x, t, labels):
        told.append(labels)
        return torch.zeros_like(x)

    x0, x1, labels = torch.randn(5, 1, 8, 8), torch.randn(5, 1, 8, 8), torch.tensor([3, 1, 10, 0, 9])
    batch_loss(LABELLED, DIGITS, DIGITS.train)(network, (x0, x1, labels), seeded())
    assert torch.equal(told[0], labels)


@pytest.fixture(scope="module")
def run(own_cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled") / "run"
    train_run(with_overrides(catalog.by_name("digits"), SMALL), folder, progress=False)
    evaluate_run(Run(folder))
    return folder


def test_the_record_has_both_likelihoods_and_what_a_classifier_finds(run):
    record = sealed.read(run / "record.json")
    bits = record["values"]["bits_per_dim"]
    assert {"flow", GIVEN} <= bits.keys()
    assert bits["flow"]["value"] != bits[GIVEN]["value"]
    found = record["evaluation"]["classifier_agreement"]
    assert found.keys() == {"all", *map(str, range(10))}
    assert found["all"] == pytest.approx(sum(found[str(k)] for k in range(10)) / 10, abs=0.03)
    assert 0 <= record["evaluation"]["classifier_confident"]["generated"] <= 1
    assert record["evaluation"]["guidance_scale"] == 1


def test_classes_are_drawn_in_their_shares_and_each_sample_is_of_its_class(run):
    found = samples(loaded := Run(run), 60)
    counts = torch.bincount(found.labels, minlength=10)
    shares = torch.bincount(DIGITS.train_labels, minlength=10) / 1500 * 60
    assert (counts - shares).abs().max() < 1.01
    assert found.labels.tolist() != sorted(found.labels.tolist())
    x0 = loaded.source.sample(60, seeded(1))
    again = loaded.sample(60, seeded(1), labels=found.labels)
    moved = x0 + 0.5 * loaded.network(x0, torch.tensor(0.0), found.labels)
    moved = moved + 0.5 * loaded.network(moved, torch.tensor(0.5), found.labels)
    torch.testing.assert_close(again.x, moved)


@pytest.mark.parametrize(("guidance", "nfe"), [(None, 2), (0, 2), (1, 2), (2.5, 4)])
def test_guidance_costs_what_it_says(run, guidance, nfe):
    loaded, labels = Run(run), torch.arange(6)
    found = loaded.sample(6, seeded(), labels=labels, guidance=guidance)
    assert found.nfe == nfe
    if guidance == 0:  # the classes do not matter
        assert torch.equal(found.x, loaded.sample(6, seeded(), labels=labels.flip(0), guidance=0).x)
        x0 = loaded.source.sample(6, seeded())
        moved = x0 + 0.5 * loaded.velocity(x0, torch.tensor(0.0))
        torch.testing.assert_close(found.x, moved + 0.5 * loaded.velocity(moved, torch.tensor(0.5)))


def test_the_scale_of_the_configuration_is_that_of_samples(run):
    as_told = Run(run, ["guidance_scale=2.5"]).sample(4, seeded(), labels=torch.arange(4))
    asked = Run(run).sample(4, seeded(), labels=torch.arange(4), guidance=2.5)
    assert torch.equal(as_told.x, asked.x)
    assert not torch.equal(as_told.x, Run(run).sample(4, seeded(), labels=torch.arange(4)).x)


def test_samples_of_one_class_from_the_command_line(run, tmp_path, capsys):
    for arguments in (["--label", "3"], ["--label", "3", "--guidance", "2"], []):
        main(["sample", str(run), "--n", "20", "--out", str(tmp_path / f"{len(arguments)}.png"), *arguments])
    assert [line.split("(")[1] for line in capsys.readouterr().out.splitlines()] == ["NFE 2)", "NFE 4)", "NFE 2)"]
    loaded = Run(run)
    assert classes_asked(loaded, 4, "7", None).tolist() == [7] * 4
    assert classes_asked(loaded, 12, None, 2.0).tolist() == [*range(10), 0, 1]
    with pytest.raises(SystemExit):
        main(["sample", str(run), "--out", str(tmp_path / "b.png"), "--label", "ten"])
    assert "--label ten: the classes are 0 0, 1 1" in capsys.readouterr().err


def test_a_kept_network_knows_the_classes(run, tmp_path):
    pretrained.keep(loaded := Run(run), tmp_path)
    kept = pretrained.load("digits", tmp_path)
    assert kept.classes == tuple(map(str, range(10)))
    labels = torch.tensor([3, 8])
    found = kept.sample(2, seeded(), labels=labels, guidance=2, method="euler", steps=2)
    expected = loaded.sample(2, seeded(), labels=labels, guidance=2)
    assert found.nfe == expected.nfe == 4
    torch.testing.assert_close(found.x, expected.x, rtol=0.02, atol=0.02)
    with pytest.raises(ValueError, match=r"from 0 to 9, got \[3, 10\]"):
        kept.sample(2, seeded(), labels=torch.tensor([3, 10]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["guidance_scale=2"], "guidance_scale=2.0 needs a network that knows classes: train with labels=true"),
        (["labels=true", "label_dropout=0", "guidance_scale=2"], "set label_dropout=0.1"),
        (["labels=true", "label_dropout=1.5"], "label_dropout is a probability from 0 to below 1"),
        (["labels=true", "loss=empirical_flow_matching", "bank=8"], "labels=true with bank=8"),
        (["labels=true", "dequantize=false", "velocity_pairs=4"], "labels=true with velocity_pairs"),
    ],
)
def test_what_does_not_go_together_is_said(settings, words):
    with pytest.raises(ValueError, match=words):
        with_overrides(catalog.by_name("digits"), settings)


def test_images_without_classes_are_refused():
    with pytest.raises(ValueError, match="needs images of at least two classes, and digits has 1"):
        build_network(LABELLED, (1, 8, 8), 1)


def test_a_run_without_classes_says_so(tmp_path):
    run = MadeRun(tmp_path)
    with pytest.raises(ValueError, match="was trained without classes: leave out --label and --guidance"):
        classes_asked(run, 3, "1", None)
    assert classes_asked(run, 3, None, None) is None
