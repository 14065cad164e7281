"""What is shipped and how it hangs together: packages, imports, lengths, and a README that is true."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
README = (ROOT / "README.md").read_text()
PACKAGES = ("models", "data", "netlists", "validation", "calibrate")
SOURCES = [
    ROOT / "__init__.py",
    ROOT / "__main__.py",
    *(p for name in PACKAGES for p in (ROOT / name).rglob("*.py")),
]
# A room imports from itself and from these.
BELOW = {
    "models": set(), "data": {"models"}, "netlists": {"models"}, "validation": {"models", "data"},
    "calibrate": {"models", "data", "netlists", "validation"},
}  # fmt: skip
LONGEST = 400


def imported(path: Path) -> list[str]:
    """Names of the modules that a file imports, anywhere in it."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import makes second copies of modules"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_package_is_listed():
    folders = {path.parent for path in ROOT.glob("*/__init__.py")}
    folders |= {path.parent for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    names = {".".join(("aimcard", *folder.relative_to(ROOT).parts)) for folder in folders} | {"aimcard"}
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == names


def test_version_is_one():
    assert run_python("import aimcard; print(aimcard.__version__)").strip() == PYPROJECT["project"]["version"]
    assert f"## {PYPROJECT['project']['version']}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("room", BELOW)
def test_imports_run_downward(room):
    allowed = {"aimcard", *(f"aimcard.{name}" for name in BELOW[room] | {room})}
    for path in (ROOT / room).rglob("*.py"):
        for name in imported(path):
            if name.split(".")[0] == "aimcard":
                assert ".".join(name.split(".")[:2]) in allowed, f"{path.name} imports {name}"


def test_models_and_data_need_no_spice(tmp_path):
    code = """
import importlib, pkgutil, sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        above = ("aimcard.netlists", "aimcard.calibrate", "aimcard.validation")
        if name.split(".")[0] == "PySpice" or name.startswith(above):
            raise ImportError(f"hidden: {name}")
sys.meta_path.insert(0, Hidden())
for room in ("aimcard.models", "aimcard.data"):
    for module in pkgutil.iter_modules(importlib.import_module(room).__path__):
        print(importlib.import_module(f"{room}.{module.name}").__name__)
"""
    loaded = run_python(code, PATH=str(tmp_path)).split()
    assert {"aimcard.models.tile", "aimcard.models.ladder", "aimcard.data.reference"} <= set(loaded)


def test_a_recorded_set_is_fitted_without_pyspice():
    code = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "PySpice":
            raise ImportError(f"hidden: {name}")
sys.meta_path.insert(0, Hidden())
import aimcard.calibrate.main_job, aimcard.calibrate.pipeline
"""
    run_python(code)


def test_the_root_has_no_side_effects():
    body = ast.parse((ROOT / "__init__.py").read_text()).body
    for node in body:
        constant = isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        assert constant or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    code = "import sys; before = set(sys.modules); import aimcard; print(sorted(set(sys.modules) - before))"
    assert run_python(code).strip() == "['aimcard']"


def test_files_are_short():
    paths = [*SOURCES, *(ROOT / "tests").glob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in paths}
    assert {name: n for name, n in lengths.items() if n > LONGEST} == {}


def test_the_tests_travel_with_the_source():
    assert "graft tests" in (ROOT / "MANIFEST.in").read_text().splitlines()
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert importlib.metadata.metadata("aimcard")["License-Expression"] == "Apache-2.0"


def commands() -> list[str]:
    section = README.split("## Set-up")[1].split("\n## ")[0]
    return re.findall(r"```bash\n(.*?)\n```", section, re.DOTALL)


def test_the_readme_sets_up_with_two_commands_that_ci_runs_too():
    install, test = commands()
    assert "\n" not in install
    assert install.endswith(".venv/bin/aimcard calibrate --out card.h5")
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    assert ci[-1] == test
    pips = [part.strip() for part in install.split("&&") if "pip install" in part]
    assert len(pips) == 3
    assert [line for line in ci if line.startswith(".venv/bin/pip install")] == pips
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        assert (path.parent / target).exists(), f"{page} links to {target}"


def examples(minutes: bool) -> str:
    """The README's Python examples as one program: those that take minutes, or the others."""
    blocks = re.findall(r"(<!-- minutes -->\n)?```python\n(.*?)```", README, re.DOTALL)
    return "\n".join(code for mark, code in blocks if bool(mark) == minutes)


def run_examples(code: str) -> dict:
    scope: dict = {}
    exec(compile(code, "README.md", "exec"), scope)
    return scope


def test_the_readme_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope = run_examples(examples(minutes=False))
    out, ideal = scope["out"], scope["ideal_charge"](
        scope["conductance_s"], scope["codes"], scope["model"].v_read_v, scope["model"].t_lsb_s
    )  # fmt: skip
    assert out.count.shape == (4, 2)
    assert "[[" in capsys.readouterr().out
    # Wire and select transistors cost charge, idle cells and pulse edges add some: percents, not more.
    assert (abs(out.charge_c / ideal - 1) < 0.2).all()
    assert (scope["wires"].charge_c < ideal * 1.1).all()


@pytest.mark.slow
def test_the_readme_examples_that_take_minutes_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_examples(examples(minutes=True))
    assert (tmp_path / "card.h5").stat().st_size > 0
