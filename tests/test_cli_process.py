"""The command line as a process: what it imports, how it prints and how it is interrupted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'PIL', 'transformers', 'tokenizers', 'yaml', 'tqdm'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "replay" in done.stdout


def test_a_terminal_of_few_letters_is_no_obstacle(tiny_model: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "cli.py"), "image", "élan \udcff 🍎", "--steps", "1"]
    done = subprocess.run(
        [*command, "--model", str(tiny_model), "--seed", "1"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "\\xe9lan-1.png\n")
    assert [path.name for path in tmp_path.iterdir()] == ["élan-1.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_leaves_nothing_behind(tiny_model: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "cli.py"), "image", "a cat", "--steps", "10000"]
    process = subprocess.Popen(
        [*command, "--model", str(tiny_model), "-o", str(tmp_path)],
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    seen = b""
    while b"/10000" not in seen:  # until the bar shows that it samples
        seen += process.stderr.read(1)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    rest = process.communicate(timeout=30)[1]
    assert time.monotonic() - start < 5  # a second on a free machine
    assert process.returncode == 130
    assert b"Traceback" not in rest
    assert [path.name for path in tmp_path.iterdir()] == []
