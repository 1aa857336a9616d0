"""``lapidist demo`` from start to end, on the bundled model."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_demo_serves_answers_and_stops() -> None:
    command = [sys.executable, "-m", "lapidist.cli.main", "demo"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stderr
    assert "ready on http://" in found.stdout
    assert "48213." in found.stdout.split("tiny: ")[2], "the model did not retrieve the number"
    assert "server stopped with exit status 0" in found.stdout
