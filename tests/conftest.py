from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def tiny():
    """The directory of a bundle that runs in no time."""
    bundle = ROOT / "tests" / "golden" / "tiny"
    return bundle if bundle.is_dir() else ROOT / "exported" / "photo-1"
