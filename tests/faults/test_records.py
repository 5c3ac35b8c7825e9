"""Records that are no records, or lack something: each reader names the file and says what to do."""

import json
import math

import pytest

from fmcore import cli
from fmcore.experiments import records
from fmcore.papers import reference

PAPERS = ("lipman2023", "bertrand2025", "lee2025", "simulation")


def of(name, **more):
    return json.dumps({"experiment": name, "values": {}, "configuration": {}} | more)


NO_RECORD = {
    "list": "[]",
    "empty": "{}",
    "null": "null",
    "number": "3",
    "NaN": '{"experiment": "a", "values": {}, "configuration": {}, "parameters": NaN}',
    "infinity": '{"a": [-Infinity]}',
    "too large": '{"a": 1e999}',
    "endless": "[" * 100_000,
    "deep": "[" * 100_000 + "]" * 100_000,
    "binary": bytes(range(256)),
    "nothing": "",
    "half": of("digits")[:-5],
    "many digits": "1" * 10_000,
    "name is a list": of(["a"]),
    "values are a list": of("digits", values=[]),
    "configuration is a number": of("digits", configuration=3),
}
# What belongs to a row of a table, and lacks or has another kind of what the row shows.
LACKING = [
    ("lipman2023", of("lipman2023/digits/ddpm")),
    ("lipman2023", of("lipman2023/digits/ddpm", values={"bits_per_dim": 3}, evaluation=[])),
    ("bertrand2025", of("bertrand2025/digits/collapse")),
    ("bertrand2025", of("bertrand2025/digits/collapse", curves=[{}])),
    ("bertrand2025", of("bertrand2025/digits/hybrid", hybrid=[3])),
    ("bertrand2025", of("bertrand2025/digits/cfm")),
    ("lee2025", of("lee2025/digits/ot", budgets=[3])),
    ("lee2025", of("lee2025/digits/ot", budgets=[{"start": "source"}])),
    ("lee2025", of("lee2025/digits/ot", values={"classifier_frechet_distance": {"generated": 1}})),
    ("lee2025", of("lee2025/geometry/digits", values={"rejected_ends": 3}, configuration={"data": "digits"})),
    ("simulation", of("lee2025/simulation/paper", configuration={"steps": "x"})),
    ("simulation", of("lee2025/simulation/paper", values={"independent": {"best": 3}})),
]


def said_by(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    said = capsys.readouterr().err
    assert left.value.code == 2, said
    assert said.startswith("error: ")
    assert len(said.strip().splitlines()) == 1
    assert "this is a bug" not in said
    return said


def write(folder, content):
    file = folder / "record.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


@pytest.mark.parametrize("name", NO_RECORD)
def test_what_is_no_record_is_named_by_every_table(name, tmp_path, capsys):
    file = write(tmp_path, NO_RECORD[name])
    assert str(file) in said_by(["table", "lipman2023", str(tmp_path)], capsys)


@pytest.mark.parametrize(("paper", "content"), LACKING)
def test_a_record_that_lacks_what_its_row_shows_is_named(paper, content, tmp_path, capsys):
    file = write(tmp_path, content)
    said = said_by(["table", paper, str(tmp_path)], capsys)
    assert f"{file} cannot be shown beside the paper: " in said
    assert "put back the original" in said


def test_a_folder_in_place_of_a_record_and_a_file_that_may_not_be_read(tmp_path, capsys, monkeypatch):
    (tmp_path / "a" / "record.json").mkdir(parents=True)
    said = said_by(["table", "lee2025", str(tmp_path)], capsys)
    assert "a/record.json: it is a folder; move that away" in said
    (tmp_path / "a" / "record.json").rename(tmp_path / "a" / "other.json")

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied", "record.json")

    file = write(tmp_path, of("digits"))
    monkeypatch.setattr(type(file), "read_text", refused)  # root may read anything
    with pytest.raises(PermissionError, match=r"record.json: permission denied; have its owner let you read it"):
        records.read_json(file)


def test_the_record_of_a_run_that_is_not_evaluated_and_other_json_are_passed_over(tmp_path):
    write(tmp_path, json.dumps({"experiment": "digits", "training": {}}))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "folder.json").mkdir()
    assert reference.find_records([tmp_path]) == {}


WHOLE = {"experiment": "a", "configuration": {}, "training": {}, "environment": {}, "parameters": 1}


@pytest.mark.parametrize("name", WHOLE)
def test_a_record_of_a_training_without_a_part_is_refused(name, tmp_path):
    assert records.of_training(WHOLE, tmp_path) == WHOLE
    for wrong in ({key: value for key, value in WHOLE.items() if key != name}, WHOLE | {name: None}, [], None):
        with pytest.raises(ValueError, match=name if isinstance(wrong, dict) else "it is no record"):
            records.of_training(wrong, tmp_path / "record.json")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_has_not_is_never_written_and_is_named(value, tmp_path):
    file = tmp_path / "a.json"
    records.write_json(file, {"values": 1})
    with pytest.raises(ValueError, match=rf"a.json was not written.*: values.fid\[1\].of is {value}\."):
        records.write_json(file, {"values": {"fid": [1.0, {"of": value}], "other": None}})
    assert json.loads(file.read_text()) == {"values": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_losses_are_read_as_written(tmp_path):
    file = tmp_path / "losses.csv"
    file.write_text("step,loss\n0,1.5\n1,2e-3\n")
    assert records.read_losses(file) == [1.5, 0.002]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "damaged"),
        (b"loss\n1", "its first line is not step,loss"),
        (b"step,loss\n0,1.5\n1", "line 3 is not 1,LOSS"),
        (b"step,loss\n0,1.5\n2,1", "line 3 is not 1,LOSS"),
        (b"step,loss\n0,nan", "line 2 is not 0,LOSS"),
        (b"step,loss\n0,word", "damaged"),
        (b"step,loss\n0,1\xff", "damaged"),
    ],
)
def test_damaged_losses_are_named(text, words, tmp_path):
    file = tmp_path / "losses.csv"
    file.write_bytes(text)
    with pytest.raises(ValueError, match=words) as found:
        records.read_losses(file)
    assert str(file) in str(found.value)
