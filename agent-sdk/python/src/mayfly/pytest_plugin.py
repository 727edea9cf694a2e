"""The fixture `mayfly_issuer`: write `pytest_plugins = ["mayfly.pytest_plugin"]` into `conftest.py`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .testing import Dev, issuer


@pytest.fixture(scope="session")
def mayfly_issuer() -> Iterator[Dev]:
    """A development issuer for the whole session."""
    with issuer() as dev:
        yield dev
