from pathlib import Path

from routedk.adapters.answer_parts import add_part


def test_parts_are_counted_by_number(tmp_path: Path) -> None:
    for name in ("part-999999.parquet", "part-1000000.parquet"):
        (tmp_path / name).touch()
    add_part(tmp_path, [{"session_id": "a", "bundles": []}])
    assert (tmp_path / "part-1000001.parquet").stat().st_size
