from pathlib import Path

import pytest

from routedk.adapters.answer_parts import add_part, sole_writer, stored
from routedk.errors import ArtifactError


def test_parts_are_counted_by_number(tmp_path: Path) -> None:
    for name in ("part-999999.parquet", "part-1000000.parquet", "part-mine.parquet"):
        (tmp_path / name).touch()
    add_part(tmp_path, [{"session_id": "a", "bundles": []}])
    assert (tmp_path / "part-1000001.parquet").stat().st_size


@pytest.mark.parametrize("content", [b"", b"PAR1 cut short", b"session_id\na\n"])
def test_a_damaged_part_is_named(content: bytes, tmp_path: Path) -> None:
    add_part(tmp_path, [{"session_id": "a", "bundles": []}])
    (tmp_path / "part-000002.parquet").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"part-000002.parquet: cannot be read .* remove it"):
        [*stored(tmp_path)]
    (tmp_path / "part-000002.parquet").unlink()
    assert [*stored(tmp_path)] == [("a", "")]


def test_what_a_killed_driver_was_writing_is_removed(tmp_path: Path) -> None:
    add_part(tmp_path, [{"session_id": "a", "bundles": []}])
    (tmp_path / "_job.json").write_text("{}")
    (tmp_path / ".part-000002.parquet.0a1b2c3d.tmp").write_bytes(b"PAR1")
    with sole_writer(tmp_path, {}):
        assert sorted(one.name for one in tmp_path.iterdir()) == [
            ".lock",
            "_job.json",
            "part-000001.parquet",
        ]


def test_the_record_of_a_job_is_an_object(tmp_path: Path) -> None:
    add_part(tmp_path, [{"session_id": "a", "bundles": []}])
    (tmp_path / "_job.json").write_text("[]")
    with pytest.raises(ArtifactError, match="not the record of a job"):
        sole_writer(tmp_path, {}).__enter__()
