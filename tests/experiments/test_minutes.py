"""A run of so many minutes, and samples that are drawn in another precision than everything else is measured in."""

import json

import pytest
import torch

from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.run import network
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.train import train_run
from fmcore.papers import catalog

TINY = ["channels=8", "multipliers=1", "attention=", "batch=8", "checkpoint_every=2", "warmup=4", "steps=9"]
CONFIGURATION = with_overrides(catalog.by_name("digits"), TINY)
FAST = ["method=heun", "solver_steps=4", "sample_precision=bf16"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    seen = []
    train_run(
        with_overrides(CONFIGURATION, ["minutes=0"]), folder, progress=False, keep=lambda step, net: seen.append(step)
    )
    return folder, seen


def test_the_folder_says_how_many_steps_fitted(finished):
    folder, seen = finished
    saved = json.loads((folder / "config.json").read_text())["training"]
    record = json.loads((folder / "record.json").read_text())
    assert saved["minutes"] == 0
    assert saved["steps"] == record["training"]["steps"] == record["configuration"]["training"]["steps"] == 7
    assert len((folder / "losses.csv").read_text().splitlines()) == 1 + 7
    assert seen == [6, 7]


def test_it_resumes_with_the_same_command_and_with_no_other(finished):
    folder, _ = finished
    before = (folder / "weights.safetensors").read_bytes()
    train_run(with_overrides(CONFIGURATION, ["minutes=0"]), folder, resume=True, progress=False)
    assert (folder / "weights.safetensors").read_bytes() == before
    with pytest.raises(ValueError, match="minutes"):
        train_run(with_overrides(CONFIGURATION, ["minutes=1"]), folder, resume=True, progress=False)


class TestSamplePrecision:
    def sample(self, folder, overrides, n=3):
        return Run(folder, overrides).sample(n, torch.Generator().manual_seed(0)).x

    def test_bfloat16_changes_samples_by_its_rounding_and_nothing_else(self, finished):
        folder, _ = finished
        exact, rounded = self.sample(folder, FAST[:2]), self.sample(folder, FAST)
        difference = float((rounded - exact).norm() / exact.norm())
        assert 1e-6 < difference < 0.02  # bfloat16 keeps 8 bits: 0.4% for one rounding
        assert rounded.dtype == torch.float32
        run = Run(folder, FAST)
        x, t = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5)
        assert torch.equal(run.velocity(x, t), Run(folder, FAST[:2]).velocity(x, t))

    def test_other_weights_change_both(self, finished, tmp_path):
        folder, _ = finished
        run = Run(folder, FAST)
        x, t = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5)
        for weight in run.network.parameters():
            weight.fill_(0.01)
        assert run.sampling_velocity(x, t).allclose(run.velocity(x, t), rtol=0.05)

    def test_only_whole_batches_are_compiled(self, finished, monkeypatch):
        folder, _ = finished
        sizes = []

        def compiled(network):
            return lambda x, t: sizes.append(len(x)) or network(x, t)

        monkeypatch.setattr(network.torch, "compile", compiled)
        overrides = [*FAST, "sample_compile=true", "solver_batch=3"]
        assert torch.equal(self.sample(folder, overrides), self.sample(folder, FAST))
        assert sizes == [3] * 8
        self.sample(folder, overrides, n=2)
        assert len(sizes) == 8

    def test_an_adaptive_solver_is_refused(self):
        with pytest.raises(ValueError, match="sample_precision=bf16 with method=dopri5"):
            with_overrides(CONFIGURATION, ["sample_precision=bf16"])
