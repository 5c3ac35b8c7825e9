"""The papers' numbers and our records: what is read, in which order, and what is refused."""

import pytest

from fmcore.experiments import records
from fmcore.papers import reference


def write(file, experiment, number):
    file.parent.mkdir(parents=True, exist_ok=True)
    records.write_json(file, {"experiment": experiment, "configuration": {}, "values": {"number": number}})


def numbers(found):
    return {name: one["values"]["number"] for name, one in found.items()}


def test_lines_that_say_where_a_table_is_from_are_no_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "REFERENCE", tmp_path)
    (tmp_path / "made.csv").write_text('# from table 1\ndata,fid\n# and its "caption"\ncifar10,6.35\n"a, b",\n')
    assert reference.read_reference("made") == [{"data": "cifar10", "fid": "6.35"}, {"data": "a, b", "fid": ""}]
    with pytest.raises(FileNotFoundError, match="other.csv is missing: .*run from a checkout"):
        reference.read_reference("other")


def test_every_table_of_the_repository_says_where_it_is_from_and_has_full_rows():
    files = sorted(reference.REFERENCE.glob("*.csv"))
    assert len(files) >= 5
    for file in files:
        assert file.read_text().startswith("#")
        rows = reference.read_reference(file.stem)
        assert rows
        assert all(None not in row and None not in row.values() for row in rows)


def test_the_last_folder_wins_and_in_it_the_last_by_name(tmp_path):
    write(tmp_path / "one" / "z.json", "a", 1)
    write(tmp_path / "two" / "deep" / "b.json", "a", 2)
    write(tmp_path / "two" / "deep" / "c.json", "a", 3)
    write(tmp_path / "one" / "y.json", "b", 4)
    one, two = tmp_path / "one", tmp_path / "two"
    assert numbers(reference.find_records([one, two])) == {"a": 3, "b": 4}
    assert numbers(reference.find_records([two, one])) == {"a": 1, "b": 4}
    assert reference.find_records([]) == {}


def test_records_that_differ_in_their_seed_alone_count_beside_each_other(tmp_path):
    def seeded(file, seed, number, steps=10):
        content = {"training": {"seed": seed, "steps": steps}, "path": "ot"}
        values = {"experiment": "a", "configuration": content, "values": {"number": number}}
        file.parent.mkdir(exist_ok=True)
        records.write_json(file, values)

    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    seeded(one / "a.json", 0, 1)
    seeded(one / "a.seed1.json", 1, 2)
    seeded(two / "a.json", 5, 3)  # of a later folder: takes the place of both
    seeded(three / "a.json", 0, 4)
    seeded(three / "b.json", 1, 5, steps=20)  # another experiment under the same name: the last by name counts
    seeded(three / "c.json", 2, 6, steps=20)
    found = [reference.find_seeds(folders)["a"] for folders in ([one], [one, two], [three])]
    assert [numbers(by_seed) for by_seed in found] == [{0: 1, 1: 2}, {5: 3}, {1: 5, 2: 6}]
    assert numbers(reference.find_records([one])) == {"a": 1}


def test_what_is_no_finished_record_is_passed_over(tmp_path):
    write(tmp_path / "a.json", "a", 1)
    records.write_json(tmp_path / "list.json", [{"experiment": "b", "values": {}, "configuration": {}}])
    records.write_json(tmp_path / "unfinished.json", {"experiment": "c", "configuration": {}})
    (tmp_path / "d.txt").write_text("{")
    assert numbers(reference.find_records([tmp_path])) == {"a": 1}


def test_a_damaged_file_and_a_folder_that_is_none_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is no folder: name one that holds runs or records"):
        reference.find_records([tmp_path / "nowhere"])
    (tmp_path / "broken.json").write_text('{"experiment": ')
    with pytest.raises(ValueError, match=r"broken.json is damaged: it is not JSON"):
        reference.find_records([tmp_path])
