"""Fixtures that every test folder shares."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Small networks lose more to threads waiting for each other than they gain; children inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell ignores Ctrl-C for what it starts with `&`, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """The command line sets up the `vlprep` logger; the next test finds it as it was."""
    logger = logging.getLogger("vlprep")
    level, handlers, propagate = logger.level, list(logger.handlers), logger.propagate
    yield
    logger.setLevel(level)
    logger.handlers[:], logger.propagate = handlers, propagate


@pytest.fixture(autouse=True)
def _own_priority() -> Iterator[None]:
    """No test may make the process real-time, as SVT-AV1 does: the children of later tests could starve each other."""
    before = _priority()
    yield
    assert _priority() == before


def _priority() -> int:
    return os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else 0


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference outputs and sample data beside the checkout; tests that need it skip without it."""
    if not (SHARED / "golden").is_dir():
        pytest.skip("../shared is not there")
    return SHARED


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """`../shared/golden`, with its weight generator importable as `golden_weights`."""
    folder = shared / "golden"
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return folder


@pytest.fixture(scope="session")
def samples(shared: Path) -> Path:
    """`../shared/samples`: a few COCO photographs, two YouTube clips, vocabularies."""
    return shared / "samples"
