"""Imports between the folders of the project go one way, without a circle."""

import ast
import functools
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# From the bottom to the top. A folder imports from itself and from those before it.
ORDER = (
    *("dataloader", "dataloader/building", "dataloader/recipes", "routing_moe/io", "routing_moe/config"),
    *("routing_moe/model", "routing_moe/optim", "routing_moe/checkpoints", "routing_moe/results"),
    *("routing_moe/evaluation", "routing_moe/task_choice", "routing_moe/answering", "routing_moe/training"),
    *("routing_moe/finetuning", "routing_moe/analysis", "routing_moe/pictures", "routing_moe/report"),
    *("routing_moe/cli", "task", "example_scripts", "benchmarks"),
)
TOP = "routing_moe"  # its public names: anything above the model may import them


def folder_of(place: str) -> str:
    return next((folder for folder in reversed(ORDER) if (place + "/").startswith(folder + "/")), TOP)


def imported(path: Path) -> set[str]:
    """The modules of the project that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {module for name in names if (module := as_module(name))}
    return found


@functools.cache
def as_module(name: str) -> str | None:
    """ "routing_moe.io.files.flush" -> "routing_moe/io/files"; None for other packages."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        place = REPOSITORY.joinpath(*parts[:end])
        if place.with_suffix(".py").is_file() or (place / "__init__.py").is_file():
            return "/".join(parts[:end])
    return None


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    paths = sorted(path for folder in ORDER for path in (REPOSITORY / folder).rglob("*.py"))
    files = {path: path.relative_to(REPOSITORY).with_suffix("").as_posix() for path in paths}
    return {place.removesuffix("/__init__"): imported(path) for path, place in files.items()}


def test_no_folder_imports_from_one_above_it(imports):
    upward = []
    for place, modules in imports.items():
        own = ORDER.index(folder_of(place))
        for module in modules:
            folder = folder_of(module)
            above = ORDER.index("routing_moe/model" if folder == TOP else folder) > own
            upward += [f"{place} imports {module}"] if above else []
    assert not upward


def test_no_imports_form_a_circle(imports):
    finished: set[str] = set()

    def visit(place: str, path: tuple[str, ...]) -> None:
        assert place not in path, " -> ".join([*path, place])
        if place in finished:
            return
        for module in sorted(imports.get(place, set()) - {place}):
            visit(module, (*path, place))
        finished.add(place)

    for place in imports:
        visit(place, ())


def test_the_analysis_draws_nothing_and_the_flags_load_no_torch():
    forbidden = {
        "routing_moe/analysis": ("matplotlib",),
        "routing_moe/config": ("torch", "transformers", "accelerate", "matplotlib", "scipy"),
    }
    for folder, libraries in forbidden.items():
        for path in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not {name.split(".")[0] for name in names} & set(libraries), path


def test_a_wheel_has_all_files_of_the_packages(tmp_path):
    """A release installs anywhere: no file that the code reads stays behind in the repository."""
    pytest.importorskip("setuptools")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    for name in ("dataloader", "routing_moe", "task"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    expected = {path.relative_to(source).as_posix() for path in source.glob("*/**/*") if path.is_file()}
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == expected
