"""Runs before any test module: makes transformers and diffusers importable beside torchaudio."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Duotone, Result

import shared.devices  # first of all imports of torch; see shared/torchaudio_shim.py


@pytest.fixture(autouse=True, scope="session")
def float32_by_default() -> Iterator[None]:
    """The same arithmetic on every machine: "auto" would be bfloat16 on some CPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared.devices, "_cpu_computes_bfloat16", lambda: False)
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights, to be read only; see tests/tiny.py."""
    from tiny import write_tiny_model

    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_music_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A music model's folder with random weights, to be read only; see tests/tiny_music.py."""
    from tiny_music import write_tiny_music_model

    folder = tmp_path_factory.mktemp("music_models") / "tiny_music"
    write_tiny_music_model(folder)
    return folder


@pytest.fixture
def duotone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Duotone]:
    """Run ``duotone ARGS`` in this process, in an empty folder."""
    import cli

    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    handler = signal.getsignal(signal.SIGINT)

    def run(*args: object) -> Result:
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(arg) for arg in args])
        captured = capsys.readouterr()
        return Result(int(exit_.value.code or 0), captured.out.splitlines(), captured.err)

    yield run
    signal.signal(signal.SIGINT, handler)
