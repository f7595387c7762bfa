"""Lint, format, types, tests: `python -m tests` runs them in turn and stops at the first failure.

Arguments go to pytest: `python -m tests -m "not slow"`.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

CHECKS = (
    ("ruff", "check"),
    ("ruff", "format", "--check"),
    ("mypy",),
    ("pytest",),
)


def main(pytest_arguments: list[str]) -> int:
    """Exit status of the first check that fails, 0 where none does."""
    for check in CHECKS:
        command = [*check, *(pytest_arguments if check == ("pytest",) else [])]
        print("$ python -m", *command, flush=True)
        status = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False).returncode
        if status:
            print(f"{check[0]} failed", file=sys.stderr)
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
