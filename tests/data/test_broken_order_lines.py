import gzip
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from routedk import DataError
from routedk.data import load_sessions


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"f\.csv: it has no lines \(is it the right file"),
        (b"order,sku\n", r"f\.csv: it has no lines"),
        (
            b"order,sku\n1,a\n2,b\n",
            r"2 sessions of one item \(first: f\.csv:2\) \(read by session=",
        ),
        (b"order,sku\n1,a,x\n2,b,x\n", r"f\.csv:2: 3 fields, the header has 2"),
        (b"\xff\xfeo\0\n\0\0\xdca\0", r"f\.csv: no column of a usual name for the session; col"),
        (b"order,sku\n1," + b"a" * (1 << 20), r"f\.csv:2: more than 1 MiB in one line"),
    ],
)
def test_broken_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_sessions(path)


def test_a_damaged_archive(tmp_path: Path) -> None:
    path = tmp_path / "f.csv.gz"
    whole = gzip.compress(b"order,sku\n" + b"1,a\n1,b\n" * 999)
    for damaged in (b"order,sku\n", whole[:-9], whole[:60] + b"\xff\xff\xff" + whole[63:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"f\.csv\.gz: cannot read: .* \(check the path\)"):
            load_sessions(path)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def small(*place: Any, **settings: Any) -> sqlite3.Connection:
        base = connect(*place, **settings)
        base.execute("PRAGMA max_page_count = 2")
        return base

    monkeypatch.setattr(sqlite3, "connect", small)
    (tmp_path / "f.csv").write_text("order,sku\n" + "1,a\n1,b\n" * 999)
    with pytest.raises(DataError, match=r"cannot sort its lines: .*full \(free space in the"):
        load_sessions(tmp_path / "f.csv")
