"""One issuer for the session, with classes whose certificates last seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mayfly.testing import Dev, issuer

CLASSES = """
[[classes]]
name = "quick"
owner = "tests"
scopes = ["search:read", "files:read"]
audiences = ["https://search.example", "https://files.example"]
svid_ttl = "10s"
max_lease = "10m"
max_depth = 3
modes = ["delegated", "autonomous"]
spawners = ["workload/orchestrator", "class/quick", "class/researcher"]

[[classes]]
name = "thrifty"
owner = "finance"
scopes = ["search:read"]
audiences = ["https://search.example"]
budget = { ops = 10 }
svid_ttl = "5m"
max_lease = "10m"
modes = ["delegated"]
spawners = ["workload/orchestrator"]
"""


@pytest.fixture(scope="session")
def dev() -> Iterator[Dev]:
    with issuer(CLASSES) as running:
        yield running


@pytest.fixture
def until() -> Callable[..., None]:
    """Waits for a condition, at most `seconds`."""

    def wait(condition: Callable[[], object], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def package() -> Path:
    """The folder of the package's sources."""
    return Path(__file__).parent.parent
