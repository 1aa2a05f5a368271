import json
from pathlib import Path

import numpy as np
import pytest

from routedk import DataError
from routedk.files import (
    JsonlLog,
    atomic_write,
    printable_json,
    read_json,
    read_jsonl,
    read_tensors,
    read_toml,
    write_json,
)
from routedk.parsing import parse_jsonl


def test_atomic_write_makes_folders_and_leaves_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b.txt"
    with atomic_write(target) as file:
        file.write("Käse\n")
        assert not target.exists()
    assert target.read_bytes() == "Käse\n".encode()
    assert [path.name for path in target.parent.iterdir()] == ["b.txt"]


def test_atomic_write_keeps_the_old_file_when_cut(tmp_path: Path) -> None:
    target = tmp_path / "b.txt"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(target) as file:  # noqa: PT012
        file.write("new")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    target = tmp_path / "lines.jsonl"
    with atomic_write(target, partial=True) as file:
        file.write("first\n")
        with (
            pytest.raises(DataError, match="another run is writing it"),
            atomic_write(target, partial=True),
        ):
            pass
    assert target.read_text() == "first\n"
    assert [path.name for path in tmp_path.iterdir()] == ["lines.jsonl"]


def test_atomic_write_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot write: not a regular file"), atomic_write(tmp_path):
        pass


def test_atomic_write_says_why_it_cannot(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DataError, match=r"cannot write: .*name another file"),
        atomic_write(tmp_path / "file" / "b.txt"),
    ):
        pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n\n{"a": }\n', r"f\.jsonl:3: invalid JSON: Expecting value at column 7"),
        (b'{"a": NaN}\n', r"f\.jsonl:1: invalid JSON: NaN is not a JSON number; use null"),
        (b'{"a": -Infinity}\n', r"f\.jsonl:1: invalid JSON: -Infinity is not a JSON number"),
        (b'{"a": 1}\n{"b": "\xff"}\n', r"f\.jsonl:2: byte 0xff is not UTF-8 \(save the file as"),
        (b"[1]\n", r"f\.jsonl:1: expected a JSON object, found list"),
        (b"[" * 100_000, r"f\.jsonl:1: invalid JSON: nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", r"f\.jsonl:1: invalid JSON: .*4300"),
        (b'{"a": ' + b"9" * 50 + b"}", r"f\.jsonl:1: invalid JSON: a number of more than 128 bits"),
        (b'{"a": 1e400}', r"f\.jsonl:1: invalid JSON: inf is not a number that a file may hold"),
        (b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", r"f\.jsonl:1: .* nested more than 64 deep"),
        (b'{"a": [{"\\ud800": 1}]}', r"f\.jsonl:1: invalid JSON: .*surrogates not allowed"),
    ],
)
def test_read_jsonl_names_file_and_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_jsonl(path))


def test_what_a_file_may_hold(tmp_path: Path) -> None:
    value = {"a": [2**64, 1e300, "\U0001f600", [[]] * 100], "b": "[" * 500}
    write_json(tmp_path / "f.json", value)
    assert read_json(tmp_path / "f.json") == value
    (tmp_path / "f.json").write_text(r'"\ud83d\ude00"')
    assert read_json(tmp_path / "f.json") == "\U0001f600"


def test_toml_is_read_or_a_data_error(tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.write_text("a = [1, 'x']\n[b]\nc = 2020-01-01")
    assert read_toml(path).keys() == {"a", "b"}
    for text, problem in (
        ("a = " + "[" * 500, "nested too deeply"),
        ("a." * 500 + "b = 1", "nested more than 64 deep"),
        ("a = " + "9" * 5000, "Exceeds the limit"),
        ("a = inf", "inf is not a number"),
        ("a", "Expected '='"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=rf"f\.toml: not TOML: {problem}.*\(fix it\)"):
            read_toml(path)


def test_a_line_or_document_that_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text('{"a": 1}\n{"a": "' + "x" * 100 + '"}\n')
    monkeypatch.setattr("routedk.files.MAX_BYTES", 50)
    monkeypatch.setattr("routedk.parsing.MAX_BYTES", 50)
    with pytest.raises(DataError, match=r"f\.jsonl:2: more than 0 MiB in one document or line"):
        list(read_jsonl(path))
    with pytest.raises(DataError, match="more than 0 MiB"):
        read_json(path)


def test_tensors_are_read_or_a_data_error(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "f.safetensors"
    save_file({"a": np.arange(3)}, path)
    assert read_tensors(path, "numpy")["a"].tolist() == [0, 1, 2]
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], whole[:20], b"\xff" * 8 + whole[8:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"f\.safetensors: missing or damaged: "):
            read_tensors(path, "numpy")


def test_an_error_is_one_short_printable_line() -> None:
    error = DataError("a\n\x1b[31m\ud800" + "x" * 10**6, path="p" * 100, line=3, hint="do this")
    assert len(str(error)) <= 300
    assert str(error).isprintable()
    assert str(error).startswith("p" * 100 + ":3: a \\x1b[31m\\ud800xxx")
    assert str(error).endswith("xxx (do this)")
    assert len(str(DataError("x", path="p" * 10**6))) <= 300


def test_read_jsonl_passes_over_byte_order_mark_and_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (3, {"a": 2})]


def test_parse_jsonl_reads_one_line_at_a_time() -> None:
    lines = iter([b'{"a": 1}\n', b"broken\n"])
    records = parse_jsonl(lines, path="<stdin>")
    assert next(records) == (1, {"a": 1})
    assert next(lines) == b"broken\n"


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file \(check the path\)"):
        read_json(tmp_path / "none.json")
    with pytest.raises(DataError, match="cannot read"):
        read_json(tmp_path)


def test_read_json_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    write_json(path, {"a": [1, "ä"]})
    assert read_json(path) == {"a": [1, "ä"]}
    path.write_text('{\n"a": 1,\n}')
    with pytest.raises(DataError, match=r"f\.json:3: invalid JSON"):
        read_json(path)
    path.write_bytes(b'{\n"\xff": 1}')
    with pytest.raises(DataError, match=r"f\.json:2: byte 0xff is not UTF-8"):
        read_json(path)


def test_a_log_is_read_back_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.jsonl"
    with JsonlLog(path) as log:
        assert log.records == []
        log.append({"a": "é"})
        log.append({"b": "half a pair \ud83d"})
    with JsonlLog(path) as log:
        assert log.records == [(1, {"a": "é"}), (2, {"b": "half a pair \ud83d"})]
        log.close()


@pytest.mark.parametrize("tail", [b'{"b": 2}', b'{"b', b"\0\0\0\0", b'{"b": \0\0', b"\xff"])
def test_a_half_written_last_line_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1}\n' + tail)
    with JsonlLog(path) as log:
        assert log.records == [(1, {"a": 1})]
        log.append({"c": 3})
    assert path.read_bytes() == b'{"a": 1}\n{"c": 3}\n'


def test_a_log_cut_within_its_first_line_is_empty(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(b"\0\0")
    with JsonlLog(tmp_path / "log.jsonl") as log:
        assert log.records == []


def test_a_broken_whole_line_of_a_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(b'{"a": 1}\n{\n')
    with pytest.raises(DataError, match=r"log\.jsonl:2: invalid JSON"):
        JsonlLog(tmp_path / "log.jsonl")


def test_a_log_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="cannot write: Is a directory"):
        JsonlLog(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with JsonlLog(tmp_path / "log.jsonl") as log:
        log.append({"a": 1})
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            with pytest.raises(DataError, match="cannot write: No space left on device"):
                log.append({"b": 2})
        log.append({"c": 3})
    assert (tmp_path / "log.jsonl").read_text() == '{"a": 1}\n{"c": 3}\n'


def test_json_that_is_shown_has_nothing_that_a_terminal_obeys() -> None:
    value = {"title": "tea \x1b[31m\x9b31m\u202e\u200b\x7f\u2028 🍵 Tüte", "n": [1, None]}
    for indent in (None, 2):
        shown = printable_json(value, indent)
        assert json.loads(shown) == value
        assert shown.replace("\n", "").isprintable()
        assert "🍵 Tüte" in shown
    assert printable_json({"tag": "\U000e0041"}) == '{"tag": "\\udb40\\udc41"}'
