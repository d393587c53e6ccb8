"""What holds for the project as a whole: its rooms, its packaging, its documents."""

import ast
import re
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

from shared.samplers import SAMPLERS

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("shared", "imagediff", "audiodiff")
WEIGHTS = ROOT / "imagediff" / "weights"
MIB = 2**20

# Where it is not the package's own name.
MODULE_OF = {"pillow": "PIL", "pyfluidsynth": "fluidsynth", "pyyaml": "yaml"}
HEAVY = {
    *("torch", "transformers", "diffusers", "accelerate", "tokenizers", "numpy", "PIL"),
    *("scipy", "mido", "soundfile", "torchaudio", "pydantic", "av"),
    *("librosa", "numba", "mir_eval"),
}


@lru_cache
def pyproject() -> dict[str, Any]:
    toml = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    return toml.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def files_of(place: str) -> list[Path]:
    path = ROOT / place
    return [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))


@lru_cache
def imports(place: str) -> dict[str, set[str]]:
    """Top-level module -> the files in ``place`` (a folder or a file) that import it."""
    found: dict[str, set[str]] = {}
    for file in files_of(place):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            else:
                continue
            for name in names:
                found.setdefault(name.partition(".")[0], set()).add(str(file.relative_to(ROOT)))
    return found


@pytest.mark.parametrize(
    "room, stranger",
    [
        ("shared", "imagediff"),
        ("shared", "audiodiff"),
        ("shared", "cli"),
        ("imagediff", "audiodiff"),
        ("audiodiff", "imagediff"),
        ("imagediff", "cli"),
        ("audiodiff", "cli"),
        *((place, "diffusers") for place in (*ROOMS, "cli.py", "recipes")),
    ],
)
def test_no_room_imports_what_it_must_not_know(room: str, stranger: str) -> None:
    assert not imports(room).get(stranger)


def test_declared_dependencies_are_the_imported_ones() -> None:
    declared = {
        MODULE_OF.get(name, name)
        for name in (Requirement(text).name for text in pyproject()["project"]["dependencies"])
    }
    own = {*ROOMS, "cli", "cli_edits", "__future__"}
    imported = {name for place in (*ROOMS, "cli.py", "cli_edits.py") for name in imports(place)}
    assert imported - own - sys.stdlib_module_names == declared


def test_constraints_pin_what_the_project_asks_for() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert not [pin for pin in pins if not re.fullmatch(r"==[\w.]+", str(pin.specifier))]
    project = pyproject()["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    asked = [Requirement(text) for group in groups for text in group]
    for python in ("3.10", "3.11", "3.13"):
        here = {
            pin.name: str(pin.specifier).removeprefix("==")
            for pin in pins
            if (pin.marker or Marker("python_version > '3'")).evaluate({"python_version": python})
        }
        for requirement in asked:
            if requirement.name != project["name"]:
                assert requirement.specifier.contains(here[requirement.name]), requirement


def test_one_version() -> None:
    declared = pyproject()["project"]["version"]
    assert f"## [{declared}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    try:
        installed = version("duotone")
    except PackageNotFoundError:
        return  # run from a source tree that was never installed
    assert installed == declared


def test_no_help_page_imports_anything_heavy() -> None:
    script = f"""
import sys, cli, click
def pages(command, path):
    yield path
    for name in getattr(command, "commands", {{}}):
        yield from pages(command.commands[name], [*path, name])
for path in list(pages(cli.cli, [])):
    try:
        cli.cli.main([*path, "--help"], prog_name="duotone")
    except SystemExit as end:
        assert not end.code, path
print("HEAVY:", *sorted(set(sys.modules) & set({HEAVY!r})))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].strip() == "HEAVY:"


def test_carried_weights_stay_small() -> None:
    def size(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))

    assert size(WEIGHTS) <= 28 * MIB
    # Judges and the upscaler, too.
    assert size(ROOT / "imagediff") + size(ROOT / "audiodiff") <= 54 * MIB


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_is_documented(name: str) -> None:
    assert f"| `{name}` |" in (ROOT / "docs" / "samplers.md").read_text(encoding="utf-8")


# Files without it are what recipes have in common.
RECIPES = [path for path in files_of("recipes") if "__main__" in path.read_text("utf-8")]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_every_recipe_is_documented_and_has_a_quick_way(recipe: Path) -> None:
    place = recipe.relative_to(ROOT / "recipes").as_posix()
    assert f"({place})" in (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    options = recipe.read_text(encoding="utf-8")
    if "read_options(" in options:  # where recipes/learn has its options from
        options = (recipe.parent / "kit.py").read_text(encoding="utf-8")
    if "studio.parser(" in options:  # where those for sound and pictures have theirs from
        options = (ROOT / "recipes" / "studio.py").read_text(encoding="utf-8")
    assert '"--quick"' in options


@pytest.mark.parametrize(
    "place", [*ROOMS, "cli.py", "cli_edits.py", "recipes", "benchmarks", "tests"]
)
def test_files_are_short(place: str) -> None:
    lengths = {path.name: path.read_bytes().count(b"\n") for path in files_of(place)}
    assert {name: length for name, length in lengths.items() if length >= 400} == {}


def test_links_between_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
            # As where the project is read, what begins with / lies in the root.
            start = ROOT if target.startswith("/") else document.parent
            assert (start / target.lstrip("/")).exists(), f"{document.name}: {target}"


@pytest.mark.skipif(not WEIGHTS.exists(), reason="no image model is carried")
def test_the_readme_s_python_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})
