"""Time, memory and summary of reading order lines: ``benchmarks.order_lines --n 1000000``.

Makes an export of n lines like a shop's: odd prices, HTML entities, returns, repeated items,
missing titles, a few broken lines. Writes it in each form, reads each in its own process, session
by session, as ``routedk generate`` does, and prints JSON: seconds, CPU seconds, peak memory in MiB
after and before reading, number of sessions, and what was logged.
"""

import argparse
import csv
import gzip
import io
import json
import logging
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HEADER = ["Order ID", "SKU", "Product Name", "Category", "Unit Price", "Order Date", "Qty"]
_NOUNS = ("Kettle", "Mug", "Lamp", "Cable 2m", "Caf&eacute; Chair", "T-Shirt", "Tent", "Socks")
_PRICES = ("{:.2f}", "{:.2f} €", "${:,.2f}", "EUR {:.2f}")

Rows = list[list[str]]


def make_rows(n: int, seed: int = 0) -> Rows:
    """Order lines; those of an order are adjacent."""
    rng = random.Random(seed)
    rows: Rows = []
    order = 0
    while len(rows) < n:
        order += 1
        day = f"2026-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02} 08:26"
        for _ in range(min(rng.choice((1, 2, 3, 4, 6, 10)), n - len(rows))):
            # Some products are bought more often.
            item = int(20_000 * rng.random() ** 3)
            title = f"{_NOUNS[item % 8]}, model {item} &amp; box" if rng.random() < 0.98 else ""
            price = rng.choice(_PRICES).format(1 + item % 1500 + 0.99)
            quantity = "-1" if rng.random() < 0.01 else str(rng.randrange(1, 4))
            kind = f"Home > {_NOUNS[item % 8]}"
            row = [f"{order:07}", f"{item:06}", title, kind, price, day, quantity]
            rows.append(row[:3] if rng.random() < 1e-3 else row)
    return rows


def _text(rows: Rows, separator: str = ",") -> str:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=separator).writerows([HEADER, *rows])
    return out.getvalue()


def _shuffled(rows: Rows, path: Path) -> None:
    path.write_text(_text(random.Random(1).sample(rows, len(rows))))


def _parts(rows: Rows, path: Path) -> None:
    path.mkdir()
    step = len(rows) // 4 + 1
    for number in range(4):
        part = rows[number * step : (number + 1) * step]
        (path / f"part-{number}.csv").write_text(_text(part))


def _whole(rows: Rows) -> list[dict[str, str]]:
    return [dict(zip(HEADER, row, strict=True)) for row in rows if len(row) == len(HEADER)]


def _parquet(rows: Rows, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(_whole(rows))
    integers = table["Order ID"].cast(pa.int64())
    pq.write_table(table.set_column(0, "Order ID", integers), path)


def _ndjson(rows: Rows, path: Path) -> None:
    path.write_text("\n".join(map(json.dumps, _whole(rows))))


FORMS: dict[str, Callable[[Rows, Path], object]] = {
    "orders.csv": lambda rows, path: path.write_text(_text(rows)),
    "shuffled.csv": _shuffled,
    "zipped.csv.gz": lambda rows, path: path.write_bytes(gzip.compress(_text(rows).encode(), 1)),
    "tabs.tsv": lambda rows, path: path.write_text(_text(rows, "\t")),
    "semicolons.csv": lambda rows, path: path.write_text(_text(rows, ";")),
    "bom.csv": lambda rows, path: path.write_text(_text(rows), encoding="utf-8-sig"),
    "utf16.csv": lambda rows, path: path.write_text(_text(rows), encoding="utf-16"),
    "orders.parquet": _parquet,
    "orders.ndjson": _ndjson,
    "parts": _parts,
}
DAMAGED = ("orders.csv", "orders.parquet", "zipped.csv.gz")
"""The forms that `benchmarks.file_fuzz` damages."""


def _peak() -> int:
    """Peak memory of this process, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


def read(path: Path) -> dict[str, object]:
    """Read a file's sessions one by one, in this process."""
    from routedk.data import scan_sessions

    log = io.StringIO()
    logging.basicConfig(stream=log, format="%(message)s", level=logging.INFO)
    # What the first file loads is not part of what a million lines need.
    for _ in scan_sessions("demo"):
        pass
    before, start, cpu = _peak(), time.perf_counter(), time.process_time()
    sessions = sum(1 for _ in scan_sessions(path))
    return {
        "form": path.name,
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_mib": _peak(),
        "before_mib": before,
        "sessions": sessions,
        "log": log.getvalue().splitlines(),
    }


def main() -> None:
    """Read the options, make the files, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=200_000)
    parser.add_argument("--forms", nargs="*", choices=list(FORMS), default=list(FORMS))
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(options.read)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = make_rows(options.n)
        for form in options.forms:
            path = Path(folder, form)
            FORMS[form](rows, path)
            command = [sys.executable, "-m", "benchmarks.order_lines", "--read", str(path)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(json.dumps({"lines": options.n, **json.loads(done.stdout)}, ensure_ascii=False))


if __name__ == "__main__":
    main()
