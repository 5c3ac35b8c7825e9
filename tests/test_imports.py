"""Imports point one way, and `import fmcore` loads nothing heavy."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "fmcore"

# A module may import those of the groups before its own.
ORDER = [
    ["validation", "locks", "console", "digests", "memory"],
    ["atomic"],
    ["tensor_file"],
    ["settings"],
    ["data", "sources"],
    ["couplings"],
    ["paths"],
    ["velocity", "time_sampling"],
    ["guidance"],
    ["closed_form"],
    ["losses"],
    ["networks"],
    ["checkpoints", "distributed"],
    ["training"],
    ["ensemble"],
    ["solvers"],
    ["mean_velocity"],
    ["likelihood"],
    ["metrics"],
    ["policy"],
    ["experiments"],
    ["papers"],
    ["doctor", "course"],
    ["cli"],
    ["__main__"],
]
RANK = {name: rank for rank, group in enumerate(ORDER) for name in group}
# The same inside fmcore.experiments.
STAGES = [["config", "records", "drawing"], ["sealed"], ["run"], ["evaluate"]]
PAPERS = ("lipman2023", "bertrand2025", "lee2025")
HEAVY = {
    "IPython",
    "PIL",
    "ipywidgets",
    "matplotlib",
    "ot",
    "pandas",
    "pooch",
    "pydantic",
    "scipy",
    "sklearn",
    "torchdiffeq",
    "torchvision",
    "tyro",
}


def imported(code: str, module: tuple[str, ...]) -> set[str]:
    """Parts of fmcore (paths, data, ...) that a module imports, inside functions too.

    module: its name in parts, ("fmcore", "data", "toy"); that of a package ends in "__init__".
    """
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*module[: len(module) - node.level]] if node.level else []
            names = [[*base, *(node.module or "").split("."), alias.name] for alias in node.names]
            names = [[part for part in name if part] for name in names]
        else:
            continue
        found |= {name[1] for name in names if name[0] == "fmcore" and len(name) > 1}
    return found


def against_the_order(code: str, module: tuple[str, ...]) -> list[str]:
    """Imports of a module that point the wrong way."""
    own = module[1]
    return sorted(
        other
        for other in imported(code, module)
        if other != own and other in RANK and (own not in RANK or RANK[other] >= RANK[own])
    )


def modules() -> list[tuple[Path, tuple[str, ...]]]:
    files = sorted(PACKAGE.rglob("*.py"))
    return [(file, ("fmcore", *file.relative_to(PACKAGE).with_suffix("").parts)) for file in files]


def test_every_module_has_a_place_in_the_order():
    parts = {module[1] for _, module in modules()} - {"__init__"}
    assert parts <= set(RANK), f"give {sorted(parts - set(RANK))} a place in ORDER"


def files_imported(code: str, known: set[str]) -> set[str]:
    """The files of fmcore, by dotted name, that a module imports: inside functions and for type checkers too."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & known or {node.module}
    return found & known


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """What is left when files that import nothing that is left are taken away, again and again."""
    left = dict(arrows)
    while free := [name for name, others in left.items() if not others & set(left) - {name}]:
        for name in free:
            del left[name]
    return sorted(left)


def arrows_between_files() -> dict[str, set[str]]:
    names = {".".join(module).removesuffix(".__init__"): file for file, module in modules()}
    del names["fmcore"]  # the front of the package shows all of it
    return {name: files_imported(file.read_text(encoding="utf-8"), set(names)) for name, file in names.items()}


def test_no_file_imports_itself_through_others():
    arrows = arrows_between_files()
    assert len(arrows) > 100
    assert not circles(arrows)


def test_a_planted_circle_is_found():
    arrows = arrows_between_files() | {"fmcore.paths": {"fmcore.losses"}}
    assert {"fmcore.paths", "fmcore.losses"} <= set(circles(arrows))


def test_an_experiment_is_configured_then_run_then_evaluated():
    rank = {name: number for number, group in enumerate(STAGES) for name in group}
    wrong = []
    for name, others in arrows_between_files().items():
        own = name.split(".")[2:3] if name.startswith("fmcore.experiments.") else []
        for other in others:
            theirs = other.split(".")[2:3] if other.startswith("fmcore.experiments.") else []
            if own and theirs and own != theirs and rank[theirs[0]] >= rank[own[0]]:
                wrong.append(f"{name} imports {other}")
    assert not wrong


def test_no_paper_imports_another():
    wrong = [
        f"{name} imports {other}"
        for name, others in arrows_between_files().items()
        for other in others
        for paper in PAPERS
        if name.startswith(f"fmcore.papers.{paper}") and other.split(".")[2:3] not in ([], [paper])
        if other.startswith(tuple(f"fmcore.papers.{one}" for one in PAPERS))
    ]
    assert not wrong


def test_no_module_is_called_utils():
    vague = {"utils", "util", "helpers", "misc", "common"}
    assert not [str(file) for file, module in modules() if vague & set(module)]


@pytest.mark.parametrize(
    ("file", "module"), modules(), ids=lambda part: ".".join(part) if isinstance(part, tuple) else ""
)
def test_imports_point_one_way(file, module):
    if module == ("fmcore", "__init__"):
        return  # the front of the package shows all of it
    wrong = against_the_order(file.read_text(encoding="utf-8"), module)
    assert not wrong, f"{'.'.join(module)} imports {wrong}, which come after it"


@pytest.mark.parametrize(
    ("code", "module", "wrong"),
    [
        ("from fmcore import solvers", ("fmcore", "paths"), ["solvers"]),
        ("import fmcore.course.style", ("fmcore", "solvers"), ["course"]),
        ("from fmcore.losses import x", ("fmcore", "losses"), []),
        ("def f():\n    from fmcore.training import fit", ("fmcore", "losses"), ["training"]),
        ("from ..training import fit", ("fmcore", "data", "toy"), ["training"]),
        ("from .. import training", ("fmcore", "data", "__init__"), ["training"]),
        ("from . import training", ("fmcore", "__init__"), ["training"]),
        ("from . import toy", ("fmcore", "data", "__init__"), []),
        ("from fmcore.sources import x", ("fmcore", "data", "toy"), ["sources"]),
        ("from fmcore import data, paths, validation", ("fmcore", "solvers"), []),
    ],
)
def test_a_planted_import_is_found(code, module, wrong):
    assert against_the_order(code, module) == wrong


def test_importing_fmcore_loads_nothing_heavy():
    """Neither the package, nor the data sets, nor all modules offered as attributes, loaded when first used."""
    code = (
        "import json, sys, torch; before = {*sys.modules}; import fmcore; front = 'fmcore.paths' in sys.modules;"
        "import fmcore.data; data = [*{*sys.modules} - before];"
        "[getattr(fmcore, name) for name in fmcore.__all__];"
        "print(json.dumps([front, data, [*{*sys.modules} - before]]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    front, data, loaded = json.loads(result.stdout)
    assert not front, "import fmcore alone should load no module of it"
    assert "fmcore.data" in data
    assert {name.split(".")[0] for name in data} & {*HEAVY, "requests", "tqdm", "filelock"} == set()
    assert {"fmcore.paths", "fmcore.solvers", "fmcore.training"} <= {*loaded}
    heavy = {name.split(".")[0] for name in loaded} & HEAVY
    assert not heavy, f"import fmcore loads {sorted(heavy)}"


def test_an_unknown_module_is_an_error_that_lists_the_known_ones():
    import fmcore

    with pytest.raises(AttributeError, match="no attribute 'sovlers'; it has closed_form, couplings"):
        _ = fmcore.sovlers
