"""``--rules`` on the command line."""

from pathlib import Path

import pytest

from .conftest import Run


@pytest.mark.usefixtures("asked")
def test_rules_that_cannot_be_used(run: Run, data: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text("price_from = 9\nprice_to = 5\n")
    code, _, err = run("generate", "--data", data, "--lm", "x", "--rules", rules)
    assert code == 2
    assert "rules.toml: rules: price_from=9 and price_to=5 contradict each other" in err
    rules.write_text("price_to = 5\n")
    code, _, err = run("generate", "--data", data, "--lm", "x", "--rules", rules)
    assert code == 2
    assert "here the language model states the bundles" in err
