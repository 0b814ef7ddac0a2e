"""The order of the code: packages import from floors below, modules in no circle; inside functions too."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "tfprune"
FLOORS = {
    "errors": 0,
    "records": 0,
    "keras": 0,
    "silence": 0,
    "budget": 0,
    "data": 1,
    "architectures": 1,
    "objectives": 1,
    "criteria": 1,
    "channels": 2,
    "pruning": 3,
    "regularization": 3.1,
    "quantization": 3.2,
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


def names_imported(path: Path) -> set[str]:
    """Return the full names that a file imports from tfprune, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the floor"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("tfprune.")}


def imports_of(path: Path) -> set[str]:
    """Return the tfprune packages that a file imports."""
    return {name.split(".")[1] for name in names_imported(path)} - {"__version__"}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    package = package_of(path)
    if package in EXEMPT:
        return
    for other in imports_of(path) - {package}:
        assert other in FLOORS, f"{other} has no floor"
        below = FLOORS[other] == 0 or FLOORS[other] < FLOORS[package]
        assert below, f"{path.relative_to(ROOT)} imports {other}, which is not below it"


@pytest.mark.parametrize("package", sorted({package_of(path) for path in ROOT.rglob("*/*.py")}))
def test_modules_of_a_package_import_each_other_in_no_circle(package):
    # Importing any module runs its package's `__init__` first: what that offers lazily is no circle.
    modules = {
        ".".join(["tfprune", *path.relative_to(ROOT).with_suffix("").parts]): path
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    imported = {module: names_imported(path) for module, path in modules.items()}
    order = TopologicalSorter(
        {
            module: [other for other in modules if any(f"{name}.".startswith(f"{other}.") for name in names)]
            for module, names in imported.items()
        }
    )
    assert set(order.static_order()) == set(modules)  # a CycleError names the circle


def test_tfmot_is_imported_by_pruning_and_quantization_only():
    for path in ROOT.rglob("*.py"):
        if "tensorflow_model_optimization" in path.read_text(encoding="utf-8"):
            assert package_of(path) in ("pruning", "quantization")


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
        "import tfprune.export, tfprune.training, tfprune.recipe, tfprune.report, tfprune.regularization",
        "import tfprune.verification.proof, tfprune.verification.runtimes",
    ],
)
def test_no_tensorflow_where_none_is_needed(code):
    assert not loaded_by(code) & {"tensorflow", "tf_keras", "keras"}


def test_help_needs_no_heavy_library():
    assert not loaded_by("import tfprune.cli") & {"numpy", "pydantic", "matplotlib", "rich", "cv2"}
