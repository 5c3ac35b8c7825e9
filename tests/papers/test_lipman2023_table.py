"""Paper against ours: the paper's numbers, our records beside them, and blanks."""

import json

import pytest

from fmcore.experiments import records
from fmcore.experiments.config.overrides import with_overrides, without_place
from fmcore.papers import catalog, reference
from fmcore.papers.lipman2023 import table as lipman2023_table


@pytest.fixture(autouse=True)
def no_results(tmp_path, monkeypatch):
    """The repository's own records change; here there are none."""
    empty = tmp_path / "results"
    empty.mkdir()
    monkeypatch.setattr(reference, "RESULTS", empty)


def record(name, *changes, fid=None, draws=3):
    configuration = with_overrides(catalog.by_name(name), [f"draws={draws}", *changes])
    values = {
        "bits_per_dim": {
            "flow": {"value": 3.456, "spread": 0.012},
            f"flow, K = {draws}": {"value": 3.321, "spread": 0.012},
        },
        "classifier_frechet_distance": {"generated": {"value": 7.5}, "held out (real)": {"value": 1.25}},
    }
    if fid:
        values["FID-50k"] = {"generated": {"value": fid}}
    return {
        "experiment": name,
        "configuration": without_place(configuration),
        "training": {"steps": configuration.training.steps},
        "evaluation": {"nfe": 131.4, "generated": 2000},
        "values": values,
    }


def by_key(rows):
    return {(row.size, row.method): row for row in rows}


def printed(rows, capsys):
    lipman2023_table.show_comparison(rows)
    return capsys.readouterr().out


def test_the_paper_s_numbers():
    rows = by_key(lipman2023_table.lipman2023())
    assert len(rows) == 26
    # Table 1, read once more: NLL, FID, NFE; and Table 4 for one draw
    assert rows["cifar10", "fm_ot"].paper == {"nll_one": 3.11, "nll_many": 2.99, "draws": 50, "fid": 6.35, "nfe": 142}
    assert rows["imagenet64", "sf"].paper == {"nll_one": 3.39, "nll_many": 3.36, "draws": 10, "fid": 24.95, "nfe": 601}
    assert rows["imagenet32", "sm"].paper["nll_many"] == 3.57  # Table 4; Table 1 says 3.56
    assert rows["imagenet128", "fm_ot"].paper["nll_many"] == 2.90
    assert rows["imagenet128", "fm_ot"].paper["nfe"] is None
    assert all(value is None for value in rows["digits", "fm_ot"].paper.values())


def test_tables_1_and_4_disagree_where_the_notes_say():
    first, fourth = (
        {(row["data"], row["method"]): row for row in reference.read_reference(f"lipman2023_table{k}")} for k in (1, 4)
    )
    apart = {key for key, row in fourth.items() if float(row["nll_many"]) != float(first[key]["nll"])}
    assert apart == {("imagenet32", "fm_diffusion"), ("imagenet32", "sm")}
    note = next(note for note in lipman2023_table.NOTES if note.startswith("ImageNet 32"))
    for key in apart:
        assert first[key]["nll"] in note
        assert fourth[key]["nll_many"] in note


def test_one_draw_of_the_paper_needs_more_bits_than_many():
    for row in reference.read_reference("lipman2023_table4"):
        assert float(row["nll_one"]) > float(row["nll_many"])


def test_a_record_stands_beside_the_paper(tmp_path, capsys):
    records.write_json(tmp_path / "results" / "a.json", record("lipman2023/cifar10/fm_ot", fid=6.66))
    rows = lipman2023_table.lipman2023()
    ours = by_key(rows)["cifar10", "fm_ot"].ours
    assert (ours["nll_one"], ours["nll_many"], ours["draws"]) == (3.456, 3.321, 3)
    assert (ours["fid"], ours["classifier_distance"], ours["real_distance"]) == (6.66, 7.5, 1.25)
    assert (ours["nfe"], ours["steps"], ours["generated"]) == (131.4, 391_000, 2000)
    assert by_key(rows)["cifar10", "ddpm"].ours == {}
    out = printed(rows, capsys)
    line = next(line for line in out.splitlines() if "FM w/ OT" in line)
    cells = [text.strip() for text in line.split("│")[1:-1]]
    paper, ours = ["3.11", "2.99", "6.35", "142"], ["3.456 ± 0.012", "3.321 (K=3)", "6.66", "7.50", "1.25", "131"]
    assert cells == ["FM w/ OT", *paper, *ours, "391,000", "2,000", "1"]
    blank = next(line for line in out.splitlines() if "DDPM" in line)  # was not run
    assert [text.strip() for text in blank.split("│")[6:-1]] == [""] * 9


def test_several_seeds_are_averaged_and_their_spread_is_shown(tmp_path, capsys):
    bits = {0: 4.0, 1: 4.3, 2: 4.6}
    for seed, value in bits.items():
        content = record("lipman2023/digits/fm_ot", f"seed={seed}")
        content["values"]["bits_per_dim"]["flow"]["value"] = value
        records.write_json(tmp_path / "results" / f"fm_ot.seed{seed}.json", content)
    row = by_key(lipman2023_table.lipman2023())["digits", "fm_ot"]
    assert {seed: ours["nll_one"] for seed, ours in row.by_seed.items()} == bits
    assert row.ours["nll_one"] == pytest.approx(4.3)
    assert row.spread("nll_one") == pytest.approx(0.3)
    assert row.changed == ()  # another seed is the same experiment
    assert row.ours["fid"] is None
    assert row.spread("fid") is None
    out = printed([row], capsys)
    line = next(line for line in out.splitlines() if "FM w/ OT" in line)
    cells = ["4.300 ± 0.300", "3.321 ± 0.000 (K=3)", "", "7.50 ± 0.00", "1.25", "131 ± 0"]
    assert [text.strip() for text in line.split("│")[2:-1]] == [*cells, "400", "2,000", "3"]


def test_the_order_of_our_rows_is_compared_with_the_paper_s(tmp_path, capsys):
    order = ["fm_ot", "sf", "fm_diffusion", "ddpm", "sm"]  # of the paper's bits/dim: 3.11, 3.21, 3.23, 3.24, 3.28
    for place, method in enumerate(order):
        content = record(f"lipman2023/digits/{method}")
        content["values"]["bits_per_dim"]["flow"]["value"] = 2.0 + place
        content["evaluation"]["nfe"] = 100 - place
        records.write_json(tmp_path / "results" / f"{method}.json", content)
    lines = {line.partition(":")[0]: line for line in printed(lipman2023_table.lipman2023(), capsys).splitlines()}
    assert "10 of 10 pairs" in lines["bits/dim, K = 1"]
    assert lines["bits/dim, K = 1"].endswith("or more with probability 0.01")  # 1 of 120 orders
    assert "5 of 10 pairs" in lines["Frechet distance"]  # all the same: every pair is a tie
    assert "4 of 10 pairs" in lines["NFE"]  # 142, 428, 183, 274, 242 in the paper: 4 of the pairs fall, as ours do


def test_a_run_with_other_settings_is_marked(tmp_path, capsys):
    content = record("lipman2023/imagenet32/sm", "steps=2", "channels=32", "rtol=0.1")
    records.write_json(tmp_path / "results" / "a.json", content)
    rows = lipman2023_table.lipman2023()
    assert by_key(rows)["imagenet32", "sm"].changed == ("channels=32", "steps=2")
    out = printed(rows, capsys)
    assert "Score Matching*" in out
    assert "* Score Matching: our run has channels=32, steps=2" in out


def test_a_record_older_than_a_field_is_not_marked_for_it(tmp_path, capsys):
    """dequantize and source came later: a run without them did what their first values say."""
    content = record("lipman2023/digits/fm_ot", "steps=7")
    del content["configuration"]["dequantize"], content["configuration"]["source"]
    records.write_json(tmp_path / "results" / "a.json", content)
    assert by_key(lipman2023_table.lipman2023())["digits", "fm_ot"].changed == ("steps=7",)
    content["configuration"]["dequantize"] = False  # and one that did otherwise is
    records.write_json(tmp_path / "results" / "a.json", content)
    rows = lipman2023_table.lipman2023()
    assert by_key(rows)["digits", "fm_ot"].changed == ("dequantize=False", "steps=7")
    assert "None" not in printed(rows, capsys)


def test_what_an_older_run_did_is_compared_with_what_the_experiment_does_now(tmp_path, monkeypatch):
    """An experiment that stops to dequantize: a run from before there was the choice did so."""
    name = "lipman2023/digits/fm_ot"
    content = record(name)
    del content["configuration"]["dequantize"]
    records.write_json(tmp_path / "results" / "a.json", content)
    monkeypatch.setitem(lipman2023_table.ROWS, name, with_overrides(catalog.by_name(name), ["dequantize=False"]))
    assert by_key(lipman2023_table.lipman2023())["digits", "fm_ot"].changed == ("dequantize=True",)


def test_no_record_of_the_repository_is_said_to_have_a_setting_that_is_none():
    found = [json.loads(file.read_text()) for file in (reference.ROOT / "results" / "lipman2023").rglob("*.json")]
    assert len(found) >= 10
    said = [text for content in found for text in lipman2023_table.changed(content)]
    assert not [text for text in said if text.endswith("=None")]


def test_sizes_without_a_paper_value_say_so(capsys):
    out = printed(lipman2023_table.lipman2023(), capsys)
    assert "digits, 8x8: 16 channels" in out
    assert out.count("no paper value") == 2
    for note in lipman2023_table.NOTES:
        assert note[:40] in out


def test_records_are_found_below_folders_and_the_last_folder_wins(tmp_path):
    name = "lipman2023/digits/ddpm"
    for place, steps in (("results/deep/down", 5), ("runs/lipman2023/digits/ddpm", 6)):
        (tmp_path / place).mkdir(parents=True)
        records.write_json(tmp_path / place / "record.json", record(name, f"steps={steps}"))
    records.write_json(tmp_path / "runs" / "other.json", {"experiment": "unfinished"})
    assert by_key(lipman2023_table.lipman2023())["digits", "ddpm"].ours["steps"] == 5
    assert by_key(lipman2023_table.lipman2023([tmp_path / "runs"]))["digits", "ddpm"].ours["steps"] == 6


def test_damaged_and_missing_places_are_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nowhere is no folder: name one that holds runs"):
        lipman2023_table.lipman2023([tmp_path / "nowhere"])
    (tmp_path / "results" / "a.json").write_text("{")
    with pytest.raises(ValueError, match="a.json is damaged"):
        lipman2023_table.lipman2023()
    monkeypatch.setattr(reference, "REFERENCE", tmp_path)
    with pytest.raises(FileNotFoundError, match="lipman2023_table1.csv is missing: .*run from a checkout"):
        lipman2023_table.lipman2023()


def test_records_in_the_repository_are_complete():
    for file in (reference.ROOT / "results").rglob("*.json"):
        content = json.loads(file.read_text())
        if not content.get("experiment", "").startswith("lipman2023/"):
            continue
        assert "data_dir" not in content["configuration"]
        assert {"commit", "versions", "hardware"} <= set(content["environment"])
        training, evaluation = content["training"], content["evaluation"]
        for name in ("global_batch", "processes", "steps", "seed", "ema", "wall_seconds", "images_per_second", "flips"):
            assert name in training
        for name in (
            "weights",
            "solver",
            "time_grid",
            "solver_batch",
            "nfe",
            "generated",
            "reference",
            "feature_space",
        ):
            assert name in evaluation
        assert lipman2023_table.measured(content)["nll_one"] == content["values"]["bits_per_dim"]["flow"]["value"]
