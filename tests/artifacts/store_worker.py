"""What each process of `test_store.py` runs: it wants one artifact, and makes it when told to."""

import os
import sys
import time
from pathlib import Path

from routedk.artifacts import ArtifactStore, Recipe


def main() -> None:
    folder = Path(sys.argv[1])

    def make(out: Path, work: Path) -> None:
        (out / f"half-{os.getpid()}.txt").write_text("ha")
        with (folder / "log").open("a") as file:
            file.write(f"{(work / 'checkpoint').exists()}\n")
        (work / "checkpoint").write_text("")
        while not (folder / "go").exists():
            time.sleep(0.01)
        (out / "whole.txt").write_text("whole")

    recipe = Recipe(stage="toy", inputs={}, settings={"number": 1})
    (folder / f"asks-{os.getpid()}").write_text("")
    ArtifactStore(folder / "store").obtain(recipe, make)


if __name__ == "__main__":
    main()
