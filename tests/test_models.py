"""Finding models on this machine, without torch and without the network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from shared import models
from shared.errors import UserError
from shared.models import card, find_model, find_models, known_words, resolve

CARD = "---\nlicense: apache-2.0\ntags:\n- tiny\n---\n\n# Tiny\n\nDraws apples.\n"


def make_model(root: Path, pipeline: str = "StableDiffusionPipeline") -> Path:
    """A folder that looks like a model: 10 parameters in unet/, in two precisions, 6 in vae/."""
    index = {
        "_class_name": pipeline,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "safety_checker": [None, None],
    }
    for name in ("unet", "vae", "tokenizer"):
        (root / name).mkdir(parents=True)
    (root / "model_index.json").write_text(json.dumps(index))
    (root / "README.md").write_text(CARD)
    (root / "tokenizer" / "words.txt").write_text("apple\t3\nred\t1\n")
    weights = {"a": np.zeros((2, 4), np.float32), "b": np.zeros(2, np.float32)}
    save_file(weights, root / "unet" / "diffusion_pytorch_model.safetensors")
    half = {key: value.astype(np.float16) for key, value in weights.items()}
    save_file(half, root / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    save_file({"c": np.zeros((2, 3), np.float16)}, root / "vae" / "model.safetensors")
    return root


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Empty places to look in, so that no model of this machine is seen."""
    monkeypatch.setenv("DUOTONE_MODELS", str(tmp_path / "mine"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    kinds = {"image": "carried", "music": "carried music", "upscaler": "carried upscaler"}
    carried = {kind: tmp_path / folder for kind, folder in kinds.items()}
    monkeypatch.setattr(models, "CARRIED", carried)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_cached(hub: Path, repo: str, *revisions: str) -> Path:
    root = hub / f"models--{repo.replace('/', '--')}"
    for revision in revisions:
        make_model(root / "snapshots" / revision)
    return root


def test_models_are_found_in_all_three_places(places):
    make_model(places / "carried")
    make_model(places / "mine" / "apples")
    make_model(places / "mine" / "songs", "MusicLDMPipeline")
    make_model(places / "mine" / "odd", "OddPipeline")
    (places / "mine" / "notes").mkdir()
    make_cached(places / "hub", "someone/pictures", "aaa")
    (places / "hub" / "models--someone--text" / "snapshots" / "bbb").mkdir(parents=True)

    found = find_models()
    assert [(info.name, info.kind, info.source) for info in found] == [
        ("builtin", "image", "carried"),
        ("apples", "image", "user folder"),
        ("odd", "other", "user folder"),
        ("songs", "music", "user folder"),
        ("someone/pictures", "image", "Hugging Face cache"),
    ]
    assert found[0].can == ("text to image",)
    assert found[2].can == found[3].can == ()


def test_a_model_is_described_from_its_files(places):
    folder = make_model(places / "mine" / "apples")
    info = find_model("apples")
    assert info.folder == folder
    assert info.parameters == 10 + 6  # two precisions of the same weights count once
    assert info.size_bytes == sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    assert info.licence == "apache-2.0"
    assert card(folder) == "# Tiny\n\nDraws apples.\n"
    assert known_words(folder) == ["apple", "red"]


def test_a_model_may_tell_nothing_of_itself(places):
    folder = make_model(places / "mine" / "apples")
    (folder / "README.md").unlink()
    (folder / "tokenizer" / "words.txt").unlink()
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"\xff" * 20)
    assert find_model("apples").licence == card(folder) == ""
    assert known_words(folder) == []


def test_names_folders_and_the_carried_model_resolve(places):
    carried, own = make_model(places / "carried"), make_model(places / "mine" / "apples")
    elsewhere = make_model(places / "else" / "where")
    assert resolve("builtin") == carried
    assert resolve("apples") == resolve(own) == own
    assert resolve("else/where").resolve() == elsewhere
    assert find_model(elsewhere).name == "where"
    assert find_model(elsewhere).source == "folder"


def test_the_revision_that_main_names_is_taken(places):
    repo = make_cached(places / "hub", "someone/pictures", "old", "new")
    os.utime(repo / "snapshots" / "old", (1, 1))
    assert resolve("someone/pictures").name == "new"
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("old")
    assert resolve("someone/pictures").name == "old"


def test_an_unknown_name_lists_what_there_is(places):
    make_model(places / "carried")
    make_model(places / "mine" / "apples")
    make_model(places / "mine" / "songs", "MusicLDMPipeline")
    with pytest.raises(UserError, match=r"did you mean 'apples'\?\); image models here: builtin, "):
        find_model("aples")
    for name in ("", "x" * 5000, "a\0b", "no/such/folder"):
        with pytest.raises(UserError, match="no model or model folder"):
            find_model(name)


def test_no_carried_model_is_told(places):
    with pytest.raises(UserError, match="carries no music model"):
        find_model("builtin", "music")
    with pytest.raises(UserError, match="image models here: none"):
        find_model("apples")


def test_what_is_no_usable_model_gets_one_line(places):
    songs = make_model(places / "songs", "MusicLDMPipeline")
    with pytest.raises(UserError, match=r"no image model.*'MusicLDMPipeline'.*StableDiffusionPipe"):
        find_model(songs)
    large = make_model(places / "large", "StableDiffusionXLPipeline")
    with pytest.raises(UserError, match=r"no image model that can be used.*XLPipeline"):
        find_model(large)
    make_model(places / "half").joinpath("vae").rename(places / "gone")
    with pytest.raises(UserError, match=r"not whole: model_index.json names vae"):
        find_model("half")
    (places / "empty").mkdir()
    with pytest.raises(UserError, match=r"not a model folder: empty \(expected model_index.json\)"):
        find_model("empty")
    (places / "empty" / "model.ckpt").write_bytes(b"")
    with pytest.raises(UserError, match=r"it has model.ckpt: pickle checkpoints are not loaded"):
        find_model("empty")
    with pytest.raises(UserError, match=r"model.ckpt is a file: pickle checkpoints are not loaded"):
        find_model("empty/model.ckpt")


def test_the_platforms_have_their_own_data_folder(monkeypatch):
    monkeypatch.delenv("DUOTONE_MODELS")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    for platform, start in (("linux", "/data"), ("win32", "/local"), ("darwin", str(Path.home()))):
        monkeypatch.setattr(sys, "platform", platform)
        assert models.user_folder().as_posix().startswith(start)
        assert models.user_folder().parts[-2:] == ("duotone", "models")


def test_finding_models_needs_no_torch():
    code = "import sys, shared.models as m; m.find_models(); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
