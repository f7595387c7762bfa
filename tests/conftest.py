from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def tiny():
    """The directory of a bundle that runs in no time."""
    bundle = ROOT / "tests" / "golden" / "tiny"
    return bundle if bundle.is_dir() else ROOT / "exported" / "photo-1"


def pytest_collection_modifyitems(config, items):
    """Tests that are asked for by their marker alone."""
    if "recipes" not in config.option.markexpr:
        for item in items:
            if "recipes" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="asked for with -m recipes"))
