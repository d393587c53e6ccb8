"""`import shared` makes torchaudio importable beside a CPU-only torch, and does nothing else."""

import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[1]

# A torchaudio whose extension loads, or fails as the CUDA build's does.
PACKAGE = {
    "__init__.py": "from . import _extension\n",
    "_extension/__init__.py": """
import os
if os.environ["BROKEN"] == "1":
    raise OSError("libc10_cuda.so: cannot open shared object file")
_IS_TORCHAUDIO_EXT_AVAILABLE = True
fail_if_no_align = str
""",
    "_internal/__init__.py": "",
    "_internal/module_utils.py": "def fail_with_message(message):\n    return lambda f: message\n",
}


def run(code: str, **env: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPO,
        env={"PATH": "", "PYTHONPATH": str(REPO), **env},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def run_with_stand_in(tmp_path: Path, broken: str, code: str) -> str:
    for name, text in PACKAGE.items():
        path = tmp_path / "torchaudio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return run(code, PYTHONPATH=f"{tmp_path}:{REPO}", BROKEN=broken)


def test_torchaudio_works_after_import_shared():
    code = """
import shared, torchaudio, torch
print(tuple(torchaudio.transforms.MelSpectrogram(n_mels=20)(torch.zeros(1, 4000)).shape))
print(tuple(torchaudio.functional.lfilter(torch.ones(1, 9), torch.ones(2), torch.ones(2)).shape))
"""
    assert run(code).split("\n") == ["(1, 20, 21)", "(1, 9)"]


def test_import_shared_imports_neither():
    code = "import shared, sys; print([m for m in ('torch', 'torchaudio') if m in sys.modules])"
    assert run(code) == "[]"


def test_a_healthy_extension_is_left_alone(tmp_path):
    code = """
import shared, torchaudio
extension = torchaudio._extension
print(extension._IS_TORCHAUDIO_EXT_AVAILABLE, extension.fail_if_no_align is str)
"""
    assert run_with_stand_in(tmp_path, "0", code) == "True True"


def test_a_broken_extension_is_told_absent(tmp_path):
    code = """
import shared, torchaudio
extension = torchaudio._extension
print(extension._IS_TORCHAUDIO_EXT_AVAILABLE, 'cannot be loaded' in extension.fail_if_no_align(0))
"""
    assert run_with_stand_in(tmp_path, "1", code) == "False True"


def test_without_torchaudio_its_absence_is_told_as_ever(tmp_path):
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio" / "__init__.py").write_text("")
    code = """
import shared
from shared.torchaudio_shim import install
import sys
before = len(sys.meta_path)
install()
assert len(sys.meta_path) == before
try:
    import torchaudio._extension
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert run(code, PYTHONPATH=f"{tmp_path}:{REPO}") == "torchaudio._extension"
