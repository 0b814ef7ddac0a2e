"""The report never needs TensorFlow."""

from __future__ import annotations

import subprocess
import sys


def test_no_module_of_the_report_imports_tensorflow() -> None:
    code = (
        "import sys, pkgutil, importlib, tfprune.report as r\n"
        "names = [m.name for m in pkgutil.iter_modules(r.__path__)]\n"
        "[importlib.import_module(f'tfprune.report.{name}') for name in names]\n"
        "heavy = {'tensorflow', 'tf_keras', 'keras', 'matplotlib.pyplot'} & set(sys.modules)\n"
        "assert len(names) > 8 and not heavy, heavy"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
