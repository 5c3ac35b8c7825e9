"""Weights files: what is kept is loaded again, under the names of the network, and only for its source."""

import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file

from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.config.source import SourceConfig
from fmcore.experiments.run.network import build_network
from fmcore.experiments.run.weights import keep_weights, load_weights
from fmcore.papers import catalog

CONFIGURATION = with_overrides(catalog.by_name("digits"), ["channels=8", "attention="])


def test_what_is_kept_is_loaded_again(tmp_path):
    first = build_network(CONFIGURATION, (1, 8, 8))
    second = build_network(with_overrides(CONFIGURATION, ["seed=1"]), (1, 8, 8))
    keep_weights(first.state_dict(), tmp_path / "weights.safetensors")
    load_weights(second, tmp_path / "weights.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_weights_that_were_trained_from_another_source_are_refused(tmp_path):
    network, file = build_network(CONFIGURATION, (1, 8, 8)), tmp_path / "weights.safetensors"
    said = {"source": json.dumps(asdict(SourceConfig(distribution="chi_sphere")))}
    save_file(network.state_dict(), file, said)  # as earlier versions did
    load_weights(network, file, source=SourceConfig(distribution="chi_sphere"), warn=False)
    with pytest.raises(ValueError, match=r"the weights in .* were trained .*distribution"):
        load_weights(network, file, source=SourceConfig(), warn=False)


def test_missing_and_damaged_files_are_named(tmp_path):
    network, file = build_network(CONFIGURATION, (1, 8, 8)), tmp_path / "weights.safetensors"
    with pytest.raises(FileNotFoundError, match=r"weights.safetensors is missing: the training has not finished"):
        load_weights(network, file)
    keep_weights(network.state_dict(), file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"weights.safetensors is damaged: .*put back"):
        load_weights(network, file)


class TestCompiledNetworks:
    """torch.compile names weights anew; files keep the names of the network."""

    def network(self):
        return build_network(CONFIGURATION, (1, 8, 8))

    def test_their_weights_are_kept_under_the_names_of_the_network(self, tmp_path):
        compiled = torch.compile(self.network(), backend="eager")
        assert all(name.startswith("_orig_mod.") for name in compiled.state_dict())
        keep_weights(compiled.state_dict(), tmp_path / "weights.safetensors")
        assert load_file(tmp_path / "weights.safetensors").keys() == self.network().state_dict().keys()

    def test_a_file_with_the_other_names_is_read(self, tmp_path):
        weights = {name: value + 1 for name, value in self.network().state_dict().items()}
        save_file({f"_orig_mod.{name}": value for name, value in weights.items()}, tmp_path / "weights.safetensors")
        network = self.network()
        with pytest.warns(UserWarning, match="no digest"):
            load_weights(network, tmp_path / "weights.safetensors")
        assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())

    def test_a_part_that_was_compiled_on_its_own_is_read(self, tmp_path):
        network = self.network()
        network.first = torch.compile(network.first, backend="eager")
        keep_weights(network.state_dict(), tmp_path / "weights.safetensors")
        assert load_file(tmp_path / "weights.safetensors").keys() == self.network().state_dict().keys()
