"""Measurements by name: what each leaves in its folder, and that nothing there is lost."""

import json
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

from fmcore.experiments import sealed
from fmcore.experiments.config.overrides import with_overrides
from fmcore.papers import measurements
from fmcore.papers.measurements import KINDS, Kind

NAMES = {
    "bertrand2025/two_moons/collapse": "collapse.png",
    "lee2025/geometry/digits": "geometry.png",
    "lee2025/simulation/paper": "simulation.png",
}


@pytest.fixture(params=NAMES)
def made(request, monkeypatch):
    """A measurement of each kind that finds a number, with all that was called, in order."""
    configuration = measurements.by_name(request.param)
    kind, calls = KINDS[type(configuration)], []

    def measure(asked, progress):
        calls.append(("measure", asked, progress))
        return SimpleNamespace(number=7)

    def figure(found):
        calls.append(("figure", found.number))
        return Figure(figsize=(1, 1))

    other = Kind(kind.picture, measure, lambda found: {"values": found.number}, figure, lambda record: None)
    monkeypatch.setitem(KINDS, type(configuration), other)
    return SimpleNamespace(configuration=configuration, picture=NAMES[request.param], calls=calls)


def test_every_measurement_has_a_kind_and_its_own_name():
    for name, one in measurements.MEASUREMENTS.items():
        assert one.experiment == name
        assert measurements.by_name(name) is one
        assert type(one) in KINDS
    assert len({kind.picture for kind in KINDS.values()}) == 3
    with pytest.raises(ValueError, match=r"lee2025/geometry/digit.*lee2025/geometry/digits"):
        measurements.by_name("lee2025/geometry/digit")


def test_a_folder_holds_the_record_and_the_picture_alone(made, tmp_path):
    folder = tmp_path / "runs" / "one"
    record = measurements.measure_run(made.configuration, folder, progress=False)
    assert record == sealed.read(folder / "record.json") == {"values": 7}
    assert sealed.is_sealed(json.loads((folder / "record.json").read_text()))
    assert {file.name for file in folder.iterdir()} == {made.picture, "record.json"}
    assert (folder / made.picture).read_bytes().startswith(b"\x89PNG")
    assert made.calls == [("measure", made.configuration, False), ("figure", 7)]


def test_a_folder_with_files_is_refused_before_anything_is_measured(made, tmp_path):
    measurements.measure_run(made.configuration, tmp_path)
    made.calls.clear()
    with pytest.raises(FileExistsError, match="is not empty: add --overwrite"):
        measurements.measure_run(made.configuration, tmp_path)
    (tmp_path / "letter.txt").write_text("dear reader")
    with pytest.raises(FileExistsError, match=r"holds other things than a measurement \(letter.txt\)"):
        measurements.measure_run(made.configuration, tmp_path, overwrite=True)
    assert made.calls == []
    (tmp_path / "letter.txt").unlink()
    measurements.measure_run(made.configuration, tmp_path, overwrite=True)
    assert [call[0] for call in made.calls] == ["measure", "figure"]


def test_a_picture_that_fails_leaves_the_record(made, tmp_path, monkeypatch):
    kind = KINDS[type(made.configuration)]

    def broken(found):
        raise RuntimeError("no picture")

    monkeypatch.setitem(
        KINDS, type(made.configuration), Kind(kind.picture, kind.measure, kind.record, broken, kind.show)
    )
    with pytest.raises(RuntimeError, match="no picture"):
        measurements.measure_run(made.configuration, tmp_path)
    assert sealed.read(tmp_path / "record.json") == {"values": 7}


def test_what_cannot_be_written_is_said_before_anything_is_measured(made, tmp_path):
    (tmp_path / "record.json").mkdir()
    with pytest.raises(IsADirectoryError, match=r"cannot write .*record.json"):
        measurements.measure_run(made.configuration, tmp_path, overwrite=True)
    assert made.calls == []


def test_a_small_collapse_from_name_to_printed_values(tmp_path, capsys):
    small = ["images=40", "pairs=20", "times=10", "shown=0.5"]
    configuration = with_overrides(measurements.by_name("bertrand2025/two_moons/collapse"), small)
    record = measurements.measure_run(configuration, tmp_path, progress=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["collapse.png", "record.json"]
    measurements.show_values(configuration, record)
    out = capsys.readouterr().out
    value = record["values"]["mean_cosine_at"]["t = 0.5"]["value"]
    assert f"{value:.3f}" in out
    assert "bertrand2025/two_moons/collapse: what was measured" in out


def test_each_measurement_is_told_by_what_it_consists_of():
    said = {name: measurements.in_words(one) for name, one in measurements.MEASUREMENTS.items()}
    assert said["bertrand2025/two_moons/collapse"] == ("two_moons", "sizes the plane; 256 pairs at 100 times")
    assert said["bertrand2025/digits/collapse"] == ("digits", "sizes 2, 4, 8; 256 pairs at 100 times")
    assert said["lee2025/simulation/paper"] == ("three directions", "10 runs of 20,000 steps")
    one = measurements.by_name("lee2025/geometry/digits")
    data, what = said["lee2025/geometry/digits"]
    assert data == "digits"
    assert what == f"axes at tau {one.tau:g}; {one.directions:,} directions of noise"
