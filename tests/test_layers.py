"""The floors of the design: a package imports only from floors below it, inside functions too."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "tfprune"
FLOORS = {
    "errors": 0,
    "records": 0,
    "keras": 0,
    "silence": 0,
    "data": 1,
    "architectures": 1,
    "objectives": 1,
    "criteria": 1,
    "channels": 2,
    "pruning": 3,
    "training": 4,
    "export": 4,
    "verification": 5,
    "targets": 6,
    "report": 7,
    "recipe": 8.0,
    "run": 8.1,
    "search": 8.2,
    "cli": 8.3,
}
EXEMPT = {"__init__", "__main__"}


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Return the tfprune packages that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the floor"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("tfprune.")}
    return found - {"__version__"}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    package = package_of(path)
    if package in EXEMPT:
        return
    for other in imports_of(path) - {package}:
        assert other in FLOORS, f"{other} has no floor"
        below = FLOORS[other] == 0 or FLOORS[other] < FLOORS[package]
        assert below, f"{path.relative_to(ROOT)} imports {other}, which is not below it"


def test_tfmot_is_imported_by_pruning_only():
    for path in ROOT.rglob("*.py"):
        if "tensorflow_model_optimization" in path.read_text(encoding="utf-8"):
            assert package_of(path) == "pruning"


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize(
    "code",
    [
        "import tfprune",
        "import tfprune.cli",
        "import tfprune.data, tfprune.architectures, tfprune.objectives, tfprune.criteria, tfprune.pruning",
        "import tfprune.export, tfprune.training, tfprune.recipe, tfprune.report",
        "import tfprune.verification.proof, tfprune.verification.runtimes",
    ],
)
def test_no_tensorflow_where_none_is_needed(code):
    assert not loaded_by(code) & {"tensorflow", "tf_keras", "keras"}


def test_help_needs_no_heavy_library():
    assert not loaded_by("import tfprune.cli") & {"numpy", "pydantic", "matplotlib", "rich", "cv2"}
