"""One list of versions: pyproject.toml says what works, constraints.txt what is installed, conda installs the same."""

from __future__ import annotations

import json
import re
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import fmcore
from fmcore.experiments import records

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


def lines(file: Path) -> list[str]:
    return [line for line in (raw.partition("#")[0].strip() for raw in file.read_text().splitlines()) if line]


def requirements() -> list[Requirement]:
    """What pyproject.toml asks for, its own extras left out."""
    extras = PROJECT["optional-dependencies"]
    listed = [*PROJECT["dependencies"], *(line for extra in extras.values() for line in extra)]
    return [r for r in map(Requirement, listed) if r.name != PROJECT["name"]]


def pins(python: str) -> dict[str, list[Version]]:
    """Name -> versions pinned in constraints.txt for one Python."""
    environment = {**default_environment(), "python_version": python, "python_full_version": f"{python}.0"}
    found: dict[str, list[Version]] = {}
    for requirement in map(Requirement, lines(ROOT / "constraints.txt")):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            [specifier] = requirement.specifier
            assert specifier.operator == "==", f"{requirement} is not one version"
            found.setdefault(canonicalize_name(requirement.name), []).append(Version(specifier.version))
    return found


def test_no_name_that_another_project_has_is_installed():
    """On the package index, fmcore is another project."""
    listed = [
        *PROJECT["dependencies"],
        *(line for extra in PROJECT["optional-dependencies"].values() for line in extra),
    ]
    assert PROJECT["name"] == "flow-matching-course"
    assert "fmcore" not in {canonicalize_name(Requirement(line).name) for line in listed}
    texts = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "environment.yml", ROOT / "Makefile"]
    texts += (ROOT / "fmcore").rglob("*.py")
    asked = re.compile(r"pip install[^\n`]*?[ \"'](fmcore\b[^\n]*)")
    found = {str(file): asked.findall(file.read_text(encoding="utf-8")) for file in texts}
    assert not {file: lines for file, lines in found.items() if lines}


def test_what_a_record_calls_fmcore_is_the_version_of_this_folder():
    assert records.environment()["versions"]["fmcore"] == PROJECT["version"] == fmcore.__version__


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_is_pinned_once_within_its_range(python):
    pinned = pins(python)
    asked = {canonicalize_name(r.name): r for r in requirements()}
    assert set(pinned) == set(asked)
    for name, requirement in asked.items():
        assert len(pinned[name]) == 1, f"{name} is pinned {len(pinned[name])} times for Python {python}"
        assert requirement.specifier.contains(pinned[name][0]), f"{name} {pinned[name][0]} is outside {requirement}"


def test_the_oldest_supported_python_is_the_first_of_the_list():
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"


@pytest.mark.skipif(RUNNING not in PYTHONS, reason=f"constraints.txt is not made for Python {RUNNING}")
def test_what_is_installed_is_what_is_pinned():
    wrong = {
        name: f"{version(name)} installed, {wanted} pinned"
        for name, [wanted] in pins(RUNNING).items()
        if Version(version(name)).public != wanted.public  # 2.13.0+cpu is 2.13.0
    }
    assert not wrong, f"{wrong}; run `make setup`"


def test_conda_installs_from_the_same_list():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, last = environment["dependencies"]
    names = {Requirement(line.replace("=", "==", 1)).name: line.partition("=")[2] for line in conda}
    assert set(names) == {"python", "pip"}, "conda brings Python and pip; all else is pinned in constraints.txt"
    assert names["python"] in PYTHONS
    arguments = [shlex.split(line) for line in last["pip"]]
    assert ["--constraint", "constraints.txt"] in arguments
    [[project]] = [rest for option, *rest in arguments if option == "--editable"]
    extras = Requirement(project.replace(".", PROJECT["name"], 1)).extras
    assert extras
    assert extras <= set(PROJECT["optional-dependencies"])
    assert len(arguments) == 2, "another pip line would be another list of versions"


def test_readme_says_what_the_record_of_digits_holds():
    record = json.loads((ROOT / "data" / "results" / "digits.json").read_text(encoding="utf-8"))
    bits = {name: found["value"] for name, found in record["values"]["bits_per_dim"].items()}
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    flow, gaussian = bits["flow"], bits["Gaussian, full covariance"]
    said = f"gave {flow:.2f} bits/dim (a Gaussian fitted to the pixels gives {gaussian:.2f})"
    assert said in readme
