"""What is told once."""

from __future__ import annotations

from qcli.host import folders
from qcli.host.once import first_time


def test_the_first_time_is_the_first_time_of_each(data_folder):
    assert [first_time("a"), first_time("a"), first_time("b")] == [True, False, True]


def test_without_a_place_to_note_it_nothing_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(folders, "state", lambda: tmp_path / "file")
    assert not first_time("a")
