"""The source of a run: kept with it, rebuilt from it, and never another by accident."""

import math
import re
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from fmcore import couplings, sources
from fmcore.cli import main
from fmcore.data import digits
from fmcore.experiments import sealed
from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.config.source import SourceConfig
from fmcore.experiments.evaluate import evaluation
from fmcore.experiments.evaluate.evaluation import evaluate_run
from fmcore.experiments.run import finished, fitted_source, pretrained, pruning_axes
from fmcore.experiments.run import train as train_module
from fmcore.experiments.run.finished import Run, Variant
from fmcore.experiments.run.fitted_source import FittedSource
from fmcore.experiments.run.train import train_run
from fmcore.experiments.run.training_batch import batch_maker
from fmcore.papers import catalog
from fmcore.solvers import solve
from fmcore.sources import pruned

DATA = digits()
TINY = ["channels=4", "attention=", "steps=2", "batch=8", "checkpoint_every=2", "warmup=1", "curve_every=0"]
QUICK = ["solver_steps=2", "generated_sets=2", "set_images=10", "classifier_steps=2", "nearest_images=0", "budgets=2,3"]
NO_PRUNE = ["prune_tau=none", "prune_threshold=none"]
CONFIGS = {
    "gaussian": SourceConfig(),
    "chi_sphere": SourceConfig(distribution="chi_sphere"),
    "dct": SourceConfig(distribution="dct", masking="strong"),
    "mixture": SourceConfig(distribution="mixture", components=2),
    "kmeans": SourceConfig(distribution="von_mises_fisher", components=3, kappa=31.0),
    "oracle": SourceConfig(distribution="von_mises_fisher", kappa=60.0),
    "rays": SourceConfig(distribution="von_mises_fisher"),
    "flow": SourceConfig(distribution="flow", flow_steps=2, flow_width=4),
    "pruned": SourceConfig(distribution="pruned", tau=0.1, threshold=0.3),
    "up": SourceConfig(norm="data_up"),
    "down": SourceConfig(norm="noise_down"),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def fitted(config):
    tensors = fitted_source.fit(config, DATA, DATA.train, False, 0)
    return tensors, fitted_source.build(config, DATA.shape, tensors, DATA.train, DATA.scaled)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_kept_gives_the_same_source_again(tmp_path, name):
    config = CONFIGS[name]
    tensors, source = fitted(config)
    file = tmp_path / "source.safetensors"
    fitted_source.keep(tensors, {"name": name}, file)
    back = fitted_source.build(config, DATA.shape, fitted_source.kept({"name": name}, file), DATA.train, DATA.scaled)
    assert torch.equal(source.start().sample(5, seeded()), back.start().sample(5, seeded()))
    assert source.start().sample(5, seeded()).shape == (5, 1, 8, 8)
    assert back.factor == source.factor


@pytest.mark.parametrize("norm", ["up", "down"])
def test_both_directions_of_norm_alignment_give_pairs_of_equal_mean_length(norm):
    _, source = fitted(CONFIGS[norm])
    x0, x1 = source.pairs(DATA.scaled(DATA.train), couplings.independent, seeded())
    length = [float(x.flatten(1).norm(dim=1).mean()) for x in (x0, x1)]
    assert math.isclose(*length, rel_tol=0.01)
    data = float(DATA.scaled(DATA.train).flatten(1).norm(dim=1).mean())
    assert math.isclose(source.factor, 8 / data, rel_tol=0.01)  # E chi(64) is 7.97
    assert math.isclose(length[1], data * (source.factor if norm == "up" else 1), rel_tol=1e-5)


def test_samples_of_a_flow_with_data_scaled_up_are_on_the_scale_of_the_data():
    # The optimal velocity towards a single point c y is (c y - x) / (1 - t), whatever x0; divided again, it ends at y.
    _, source = fitted(CONFIGS["up"])
    y = DATA.scaled(DATA.train[:1])
    velocity = source.velocity(lambda x, t: (source.factor * y - x) / (1 - t))
    start = source.start().sample(4, seeded())
    end = solve(velocity, start, t1=1 - 1e-6, method="euler", steps=50).x
    assert torch.allclose(end, y.expand_as(end), atol=1e-3)
    assert (
        abs(float(start.flatten(1).norm(dim=1).mean()) - float(DATA.scaled(DATA.train).flatten(1).norm(dim=1).mean()))
        < 1
    )


@pytest.mark.parametrize("norm", ["data_up", "noise_down"])
def test_both_directions_are_one_flow_on_the_scale_of_the_data(norm):
    config = SourceConfig(norm=norm)
    _, source = fitted(config)
    x0, x1 = source.pairs(DATA.scaled(DATA.train[:6]), couplings.independent, seeded(3))
    scale = source.factor if norm == "data_up" else 1
    plain, _ = fitted(SourceConfig())[1].pairs(DATA.scaled(DATA.train[:6]), couplings.independent, seeded(3))
    assert torch.allclose(x0 / scale, plain / source.factor)
    assert torch.allclose(x1 / scale, DATA.scaled(DATA.train[:6]))


def test_the_oracle_draws_each_x0_around_its_own_x1():
    _, source = fitted(CONFIGS["oracle"])
    x1 = DATA.scaled(DATA.train)
    x0, same = source.pairs(x1, couplings.independent, seeded())
    assert torch.equal(same, x1)
    cosines = torch.cosine_similarity(x0.flatten(1), x1.flatten(1)).double()
    others = torch.cosine_similarity(x0.flatten(1), x1.roll(1, 0).flatten(1)).double()
    # The mean cosine of kappa = 60 in d = 64 dimensions, A = I_32(60) / I_31(60), by the ratio of Bessel functions.
    from scipy.special import ive

    expected = float(ive(32, 60) / ive(31, 60))
    error = float(cosines.std()) / math.sqrt(len(cosines))
    assert abs(float(cosines.mean()) - expected) < 4 * error
    assert float(others.mean()) < expected - 0.05


def test_masked_frequencies_are_masked_in_the_data_too():
    kept = torch.ones(1, 8, 8, dtype=torch.bool)
    kept[0, 7, 7] = False
    source = FittedSource(SourceConfig(distribution="dct", masking="weak"), sources.DCT(DATA.shape, kept))
    x0, x1 = source.pairs(DATA.scaled(DATA.train[:20]), couplings.independent, seeded())
    wave = torch.tensor([math.cos(math.pi * (j + 0.5) * 7 / 8) for j in range(8)])
    checkers = torch.outer(wave, wave)
    for x in (x0, x1):
        assert float((x[:, 0] * checkers).sum(dim=(1, 2)).abs().max()) < 1e-5


def test_a_source_fitted_for_something_else_is_refused(tmp_path):
    file = tmp_path / "source.safetensors"
    tensors, _ = fitted(CONFIGS["kmeans"])
    fitted_source.keep(tensors, {"kappa": 31.0}, file)
    with pytest.raises(ValueError, match=r"kappa \(was 31.0, now 50.0\)"):
        fitted_source.kept({"kappa": 50.0}, file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        fitted_source.kept({"kappa": 31.0}, file)
    assert fitted_source.kept({}, tmp_path / "none") is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["distribution=mixture"], "needs components"),
        (["kappa=3"], "does not belong"),
        (["distribution=von_mises_fisher", "kappa=-1"], "at least 0"),
        (["distribution=pruned", "tau=0.1", "threshold=2"], "cosines"),
        (["norm=data_up", "loss=noise_prediction", "path=variance_preserving"], "standard Gaussian"),
        (["norm=data_up", "velocity_pairs=4"], "exact velocity"),
        (["distribution=von_mises_fisher", "coupling=minibatch_ot"], "own x1"),
        (["distribution=dct", "masking=weak", "likelihood_images=4"], "bits/dim"),
        (["prune_tau=0.1"], "both"),
        (["prune_tau=0.1", "prune_threshold=0.2", "budgets="], "budgets"),
        (["budgets=20,10"], "increasing"),
        (["align_steps=True", "budgets="], "budgets"),
        (["align_steps=True", "norm=data_up"], "trained without"),
        (["distribution=mixture", "components=2", "prune_tau=.1", "prune_threshold=.2"], "uniform direction"),
        (["distribution=gausian"], "distribution"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        with_overrides(catalog.by_name("lee2025/digits/chi_sphere"), ["distribution=gaussian", *settings])


@pytest.fixture(scope="module")
def aligned(own_cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "aligned"
    row = with_overrides(catalog.by_name("lee2025/digits/independent_norm"), TINY + QUICK)
    train_run(row, folder, progress=False)
    return folder, evaluate_run(Run(folder))


def test_a_run_samples_from_the_source_it_was_trained_with(aligned):
    folder, record = aligned
    run = Run(folder)
    assert run.fitted.factor > 1.2
    assert record["norm_factor"] == run.fitted.factor
    x0 = run.source.sample(500, seeded())
    assert abs(float(x0.flatten(1).norm(dim=1).mean()) - run.fitted.norms[1]) < 0.1
    with pytest.raises(ValueError, match="another source.norm"):
        Run(folder, ["norm=none"])
    (folder / fitted_source.FILE).rename(folder / "away")
    with pytest.raises(FileNotFoundError, match="where samples start"):
        Run(folder)
    (folder / "away").rename(folder / fitted_source.FILE)


def test_weights_of_another_source_are_refused(aligned, tmp_path):
    folder, _ = aligned
    weights = folder / "weights.safetensors"
    own = weights.read_bytes()
    save_file(load_file(weights), weights, {"source": '{"norm": "none"}'})
    with (
        pytest.raises(ValueError, match=r"norm \(was none, now data_up\)"),
        pytest.warns(UserWarning, match="no digest"),
    ):
        Run(folder)
    weights.write_bytes(own)
    Run(folder)


def test_pruned_starts_are_asked_for_and_recorded(aligned):
    _, record = aligned
    assert [(one["start"], one["nfe"]) for one in record["budgets"]] == [
        ("source", 2),
        ("source", 3),
        ("pruned", 2),
        ("pruned", 3),
    ]
    assert (record["pruning"]["tau"], record["pruning"]["threshold"]) == (0.1, 0.25)
    assert 0.2 < record["pruning"]["share_kept"] < 0.45
    assert record["evaluation"]["source"].startswith("gaussian, norms aligned (data_up, factor 1.2")


def test_pruned_starts_have_no_direction_near_a_rejected_axis(aligned):
    folder, _ = aligned
    start, pruned = Run(folder).pruned()
    x0 = start.sample(300, seeded())
    assert bool((pruned.axes.largest_cosine(x0) <= 0.25 + 1e-6).all())
    assert float((pruned.axes.largest_cosine(Run(folder).source.sample(300, seeded())) > 0.25).double().mean()) > 0.5
    with pytest.raises(ValueError, match="prune_tau"):
        Run(folder, ["prune_tau=none", "prune_threshold=none"]).pruned()


def test_pictures_are_drawn_from_pruned_starts_if_asked_for(aligned, tmp_path, capsys):
    folder, _ = aligned
    for name, flags in {"plain": [], "pruned": ["--pruned"]}.items():
        main(["sample", str(folder), "--n", "4", "--out", str(tmp_path / f"{name}.png"), *flags])
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "pruned.png").read_bytes()
    with pytest.raises(SystemExit):
        main(["sample", str(folder), "prune_tau=none", "prune_threshold=none", "--pruned"])
    assert "set prune_tau and prune_threshold" in capsys.readouterr().err


def test_budgets_of_the_run_s_own_solver_are_not_drawn_twice(aligned):
    _, record = aligned
    own = record["values"]["classifier_frechet_distance"]["generated"]["value"]
    assert record["budgets"][0]["frechet_distance"] == own


def test_aligned_steps_end_where_uniform_ones_do_when_there_are_many(aligned, tmp_path):
    row = with_overrides(catalog.by_name("lee2025/digits/independent"), [*TINY, *QUICK, "align_steps=True"])
    train_run(row, tmp_path / "run", progress=False)
    run = Run(tmp_path / "run")
    found = [run.sample(4, seeded(), variant=Variant(80, factor)).x for factor in (1.0, 1.25)]
    few = [run.sample(4, seeded(), variant=Variant(3, factor)).x for factor in (1.0, 1.25)]
    differs = [float((one[0] - one[1]).abs().max()) for one in (found, few)]
    assert differs[0] < differs[1] / 10  # 3 and 80 steps of a method of first order
    record = evaluate_run(run)
    assert math.isclose(record["step_alignment_factor"], 7.97 / 6.376, rel_tol=0.01)
    assert [one["steps"] for one in record["budgets"]] == ["uniform", "uniform", "aligned", "aligned"] * 2


def test_a_kept_network_brings_its_source(aligned, tmp_path):
    folder, _ = aligned
    run = Run(folder)
    pretrained.keep(run, tmp_path)
    name = "lee2025_digits_independent_norm"
    back = pretrained.load(name, tmp_path)
    assert torch.equal(back.source.sample(3, seeded()), run.source.sample(3, seeded()))
    x = run.source.sample(3, seeded())
    close = back.velocity(x, torch.tensor(0.5)) - run.velocity(x, torch.tensor(0.5))
    assert float(close.abs().max()) < 0.1
    (tmp_path / f"{name}.source.safetensors").unlink()
    with pytest.raises(ValueError, match="where samples start"):
        pretrained.load(name, tmp_path)


@pytest.mark.parametrize("row", ["oracle1500", "flow", "mixture2", "pruned_ot", "dct_weak"])
def test_rows_of_the_table_go_from_training_to_record(own_cache, tmp_path, row):
    settings = [*TINY, *QUICK, *(["flow_steps=2", "flow_width=4"] if row == "flow" else [])]
    train_run(with_overrides(catalog.by_name(f"lee2025/digits/{row}"), settings), tmp_path / "run", progress=False)
    record = evaluate_run(Run(tmp_path / "run"))
    assert [one["start"] for one in record["budgets"]] == ["source", "source"]
    assert all(math.isfinite(one["frechet_distance"]) for one in record["budgets"])


def test_pruned_starts_of_a_variance_exploding_path_have_its_standard_deviation(tmp_path):
    row = with_overrides(
        catalog.by_name("lee2025/digits/independent"),
        ["path=variance_exploding", "prune_tau=0.1", "prune_threshold=0.3"],
    )
    scale = row.build_path().source_scale
    source = fitted_source.from_fitted(row, {}, DATA, DATA.train)
    axes = pruning_axes.keep_axes(DATA, DATA.train, False, 0.1, tmp_path / pruning_axes.FILE)
    start, _ = fitted_source.pruned_start(source, 0.3, axes)
    for one in (source.start(), start):
        length = float(one.sample(500, seeded()).flatten(1).norm(dim=1).mean())
        assert math.isclose(length, 7.97 * scale, rel_tol=0.02)  # E chi(64) is 7.97
    assert scale > 10


class TestKeptAxes:
    """They are taken for what they say they are, and for nothing else."""

    @staticmethod
    def expected(tau, flips=False, images=DATA.train):
        """How many ends of axes no image comes close to, as `pruning_axes` has it."""
        return sources.pruning_axes(images, tau, flips, DATA.scaled).count

    def test_those_of_another_tau_flips_or_number_of_images_are_found_anew(self, tmp_path):
        file = tmp_path / pruning_axes.FILE
        asked = [(0.1, False, DATA.train), (0.3, False, DATA.train)]  # each differs from the one before in one thing
        asked += [(0.3, True, DATA.train), (0.3, True, DATA.train[:9])]
        found = [pruning_axes.keep_axes(DATA, images, flips, tau, file).count for tau, flips, images in asked]
        assert found == [self.expected(tau, flips, images) for tau, flips, images in asked]
        assert len({*found}) == 4

    def test_the_same_are_read_back_and_not_searched_again(self, tmp_path, monkeypatch):
        file = tmp_path / pruning_axes.FILE
        first = pruning_axes.keep_axes(DATA, DATA.train, False, 0.1, file)
        monkeypatch.setattr(sources, "pruning_axes", None)
        again = pruning_axes.keep_axes(DATA, DATA.train, False, 0.1, file)
        for name in ("axes", "positive", "negative"):
            assert torch.equal(getattr(first, name), getattr(again, name))
            assert getattr(first, name).stride() == getattr(again, name).stride()

    def test_a_run_never_takes_those_that_another_put_into_its_folder_meanwhile(self, aligned, tmp_path, monkeypatch):
        """Drawing pruned samples with another tau keeps its axes in the same file, and needs no lock."""
        folder, _ = aligned
        shutil.copytree(folder, tmp_path / "run")
        keep_axes, counts = pruning_axes.keep_axes, []
        file = tmp_path / "run" / pruning_axes.FILE

        def interfered(*arguments):
            axes = keep_axes(*arguments)
            counts.append(axes.count)
            keep_axes(DATA, DATA.train, False, 0.4, file)
            return axes

        monkeypatch.setattr(finished, "keep_axes", interfered)
        run = Run(tmp_path / "run")
        for _ in range(2):  # the second time it finds those of the other
            assert run.pruned()[1].axes.count == self.expected(0.1) != self.expected(0.4)
        assert counts == [self.expected(0.1)] * 2


def test_a_resumed_training_keeps_its_source(own_cache, tmp_path):
    row = with_overrides(catalog.by_name("lee2025/digits/kmeans1500"), TINY)
    longer = replace(row, training=replace(row.training, steps=2))
    train_run(longer, tmp_path / "run", progress=False)
    before = (tmp_path / "run" / fitted_source.FILE).read_bytes()
    train_run(longer, tmp_path / "run", resume=True, progress=False)
    assert (tmp_path / "run" / fitted_source.FILE).read_bytes() == before


class TestNothingToPrune:
    """It is found before the training, which may take days, and not after it."""

    @pytest.fixture
    def never(self, monkeypatch):
        """A training that must not begin."""

        def train(*arguments, **settings):
            raise AssertionError("the training began")

        monkeypatch.setattr(train_module, "train", train)
        monkeypatch.setattr(pruned, "MOST_PROPOSALS", 2000)  # after which a region counts as empty

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            (
                ["prune_tau=-0.9"],
                r"at tau=-0.9: no end of the 64 axes .* raise tau to -0\.\d+ or more",
            ),
            (["prune_tau=1", "prune_threshold=0.126"], "nothing to start from: none of .* proposals"),
            (["distribution=pruned", "tau=-0.9", "threshold=0.25", *NO_PRUNE], "nothing to prune at tau=-0.9"),
            (["distribution=pruned", "tau=1", "threshold=0.126", *NO_PRUNE], "nothing to start from: none of"),
        ],
    )
    def test_it_is_an_error_before_the_first_step(self, never, tmp_path, settings, says):
        row = with_overrides(catalog.by_name("lee2025/digits/independent"), [*TINY, *settings])
        with pytest.raises(ValueError, match=says):
            train_run(row, tmp_path / "run", progress=False)

    def test_where_there_is_something_the_training_begins(self, never, tmp_path):
        row = with_overrides(catalog.by_name("lee2025/digits/independent"), TINY)
        with pytest.raises(AssertionError, match="the training began"):
            train_run(row, tmp_path / "run", progress=False)

    def test_the_cosine_that_it_names_is_where_pruning_begins(self, tmp_path):
        with pytest.raises(ValueError, match="nothing to prune") as found:
            pruning_axes.axes_to_prune(DATA, DATA.train, False, -0.9)
        least = float(re.search(r"raise tau to (-?\d\.\d+)", str(found.value)).group(1))
        assert pruning_axes.axes_to_prune(DATA, DATA.train, False, least).count == 1
        with pytest.raises(ValueError, match="nothing to prune"):
            pruning_axes.axes_to_prune(DATA, DATA.train, False, least - 1e-4)

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            (["prune_tau=-0.9"], "nothing to prune at tau=-0.9"),
            (["prune_tau=1", "prune_threshold=0.126"], "nothing to start from: none of"),
        ],
    )
    def test_an_evaluation_says_so_before_it_draws_samples(self, never, aligned, tmp_path, monkeypatch, settings, says):
        folder, record = aligned
        shutil.copytree(folder, tmp_path / "run")

        def samples(*arguments):
            raise AssertionError("samples are drawn")

        monkeypatch.setattr(evaluation, "samples", samples)
        with pytest.raises(ValueError, match=says):
            evaluate_run(Run(tmp_path / "run", settings))
        assert sealed.read(tmp_path / "run" / "record.json") == record
        with pytest.raises(AssertionError, match="samples are drawn"):
            evaluate_run(Run(tmp_path / "run"))

    def test_one_line_says_so_on_the_command_line(self, never, tmp_path, capsys):
        with pytest.raises(SystemExit):
            main(["train", "lee2025/digits/independent", *TINY, "prune_tau=-0.9", "--run-dir", str(tmp_path / "run")])
        assert capsys.readouterr().err.count("error: nothing to prune at tau=-0.9") == 1


def test_pairs_of_a_source_that_must_be_fitted_need_it():
    row = catalog.by_name("lee2025/digits/kmeans1500")
    with pytest.raises(ValueError, match="fitted first"):
        batch_maker(row, DATA)


def test_a_wrong_source_on_the_command_line_is_one_line(capsys):
    with pytest.raises(SystemExit):
        main(["train", "lee2025/digits/ot", "distribution=mixture"])
    assert "needs components" in capsys.readouterr().err
