"""The recipes that teach: each runs, and its result is what it says."""

import gzip
import hashlib
import importlib
import struct
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
import pytest
import torch
from PIL import Image

from shared.errors import UserError

FOLDER = Path(__file__).resolve().parent.parent / "recipes" / "learn"
Figures = Mapping[str, float]


class Run(Protocol):
    def __call__(self, name: str, *more: str) -> tuple[Figures, Image.Image]: ...


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """Import a module of recipes/learn, as a script there would."""
    monkeypatch.syspath_prepend(FOLDER)

    def one(name: str) -> ModuleType:
        return importlib.import_module(name)

    return one


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained networks are kept here, so that only the first recipe trains the denoiser."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def run(load, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a recipe with --quick; its figures and its picture."""

    def one(name: str, *more: str) -> tuple[Figures, Image.Image]:
        out = tmp_path / f"{name}.png"
        arguments = ["--quick", "--out", str(out), "--runs", str(runs), *more]
        figures = load(name).main(arguments)
        assert capsys.readouterr().out.splitlines() == [str(out)]
        picture = Image.open(out).convert("L")
        assert np.asarray(picture).std() > 10  # not flat
        return figures, picture

    return one


def falls(figures: Figures, name: str = "") -> bool:
    return figures[f"{name}last loss"] < 0.9 * figures[f"{name}first loss"]


def test_ddpm_learns(run: Run):
    figures, picture = run("ddpm")
    assert falls(figures)
    assert picture.width > 6 * 58 and picture.height == 10 * 58 + 2


def test_langevin_dynamics_comes_nearer_to_the_data(run: Run):
    figures, _ = run("score_langevin")
    assert figures["last loss"] < figures["first loss"]
    far = figures["of noise of the data's size"]
    assert figures["energy distance of samples to data"] < far


def test_sde_and_ode_have_one_distribution(run: Run):
    figures, _ = run("sde_ode")
    for way in ("SDE", "ODE"):
        assert figures[f"{way}: mean"] == pytest.approx(figures["mean of the data"], abs=0.15)
        deviation = figures["standard deviation of the data"]
        assert figures[f"{way}: deviation"] == pytest.approx(deviation, abs=0.1)
    assert figures["one start: spread of the SDE's ends"] > 0.1


def test_ddim_nears_one_picture_and_ddpm_none(run: Run):
    figures, _ = run("ddim_steps")
    few, more = (figures[f"DDIM {n}: distance to DDIM 30"] for n in (2, 8))
    assert more < 0.7 * few
    assert more < 0.5 * figures["DDPM 8: distance to DDPM 30"]


def test_the_vae_s_plane_has_two_dimensions(run: Run):
    figures, picture = run("vae_plane")
    assert falls(figures)
    # Of standard normal latents both would be 1; one that tells nothing has next to no variance.
    narrow, wide = (
        figures[f"variance of places along {axis} axis"]
        for axis in ("their shorter", "their longer")
    )
    assert narrow > 0.1 * wide and narrow > 0.1
    assert figures["share of pictures whose nearest has their label"] > 0.2  # 0.1 by lot
    assert picture.height >= 13 * 28


def test_kl_and_vq_learn(run: Run):
    figures, _ = run("kl_vq")
    assert falls(figures, "KL: ") and falls(figures, "VQ: ")
    assert 0 < figures["VQ: bits a picture"] <= 64 * 6


def test_guidance_guides(run: Run):
    figures, picture = run("guidance")
    assert falls(figures)
    assert picture.height == 7 * 58 + 18


def test_repaint_keeps_the_known_half(run: Run):
    figures, _ = run("repaint")
    assert figures["known half, largest error"] < 1e-5
    assert figures["other half, error of RePaint"] > 0.01


def test_the_bridge_goes_from_one_set_to_the_other(run: Run):
    figures, _ = run("bridge")
    apart = figures["energy distance of the two sets"]
    assert figures["of the bridge's ends to their set"] < apart
    assert figures["after the last round"] < figures["squared distance of a pair drawn by lot"]


def test_a_picture_is_not_overwritten_unasked(load, runs: Path, tmp_path: Path):
    out = tmp_path / "kept.png"
    out.write_bytes(b"mine")
    with pytest.raises(UserError, match="--overwrite"):
        load("ddpm").main(["--quick", "--out", str(out), "--runs", str(runs)])
    assert out.read_bytes() == b"mine"


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def test_fashion_mnist_is_read_from_its_idx_files(load, tmp_path: Path):
    pictures = load("pictures")
    images = np.arange(3 * 28 * 28).reshape(3, 28, 28) % 256
    write_idx(tmp_path / f"{pictures.IMAGES}.gz", images)
    write_idx(tmp_path / f"{pictures.LABELS}.gz", np.array([7, 0, 9]))
    data = pictures.load_pictures(tmp_path, download=False)
    assert data.name == "fashion"
    assert data.labels.tolist() == [7, 0, 9]
    expected = torch.from_numpy(images)[:, None].float() / 127.5 - 1
    torch.testing.assert_close(data.images, expected)
    # The same from files that are not packed.
    for name in (pictures.IMAGES, pictures.LABELS):
        packed = tmp_path / f"{name}.gz"
        (tmp_path / name).write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    assert torch.equal(pictures.load_pictures(tmp_path, download=False).images, data.images)


@pytest.mark.parametrize("broken", [b"", b"\0\0\x08\x03", b"not packed"])
def test_files_that_are_not_fashion_mnist_are_refused(load, tmp_path: Path, broken: bytes):
    pictures = load("pictures")
    with pytest.raises(UserError, match="needs a readable train-images"):
        pictures.load_pictures(tmp_path, download=False)
    (tmp_path / pictures.IMAGES).write_bytes(broken)
    with pytest.raises(UserError, match="no idx file"):
        pictures.load_pictures(tmp_path, download=False)


class Server(ThreadingHTTPServer):
    """Serves files from memory: name -> its bytes, and how many of them it announces."""

    files: dict[str, tuple[bytes, int]]
    asked: list[str]


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        name = self.path.rpartition("/")[2]
        self.server.asked.append(name)
        if name not in self.server.files:
            self.send_error(404)
            return
        data, announced = self.server.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(announced))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """Three pictures and their labels in the place of Fashion-MNIST's own files."""
    pictures = load("pictures")
    write_idx(tmp_path / "images", np.arange(3 * 28 * 28).reshape(3, 28, 28) % 256)
    write_idx(tmp_path / "labels", np.array([7, 0, 9]))
    data = [(tmp_path / name).read_bytes() for name in ("images", "labels")]
    names = (pictures.IMAGES, pictures.LABELS)
    sums = [hashlib.md5(one, usedforsecurity=False).hexdigest() for one in data]
    monkeypatch.setattr(pictures, "MD5", dict(zip(names, sums, strict=True)))
    with Server(("127.0.0.1", 0), Answer) as served:
        served.asked = []
        served.files = {
            f"{name}.gz": (one, len(one)) for name, one in zip(names, data, strict=True)
        }
        monkeypatch.setattr(pictures, "URL", f"http://127.0.0.1:{served.server_port}/data/")
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def test_fashion_mnist_is_downloaded_once(load, server: Server, tmp_path: Path):
    pictures, folder = load("pictures"), tmp_path / "new" / "folder"
    data = pictures.load_pictures(folder, download=True)
    assert data.labels.tolist() == [7, 0, 9] and data.images.shape == (3, 1, 28, 28)
    assert sorted(path.name for path in folder.iterdir()) == sorted(server.asked)
    again = pictures.load_pictures(folder, download=True)
    assert torch.equal(again.images, data.images) and len(server.asked) == 2


def test_what_is_downloaded_must_be_whole_and_the_same(load, server: Server, tmp_path: Path):
    pictures, folder = load("pictures"), tmp_path / "folder"
    name = f"{pictures.IMAGES}.gz"
    data, length = server.files[name]
    for bad, told in (
        ((data[:-1] + b"x", length), "MD5 sum differs"),
        ((data[:100], length), "cannot download .*by hand.*drawn digits"),  # it breaks off
    ):
        server.files[name] = bad
        with pytest.raises(UserError, match=told):
            pictures.load_pictures(folder, download=True)
        assert list(folder.iterdir()) == []
    del server.files[name]
    with pytest.raises(UserError, match=f"cannot download .*{name} .*404"):
        pictures.load_pictures(folder, download=True)


def test_without_a_network_one_line_says_what_to_do(
    load, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    pictures = load("pictures")
    server.shutdown()
    server.server_close()  # its port refuses from now on
    arguments = ["--quick", "--data", str(tmp_path / "none"), "--download"]
    main = load("ddpm").main
    with pytest.raises(SystemExit) as stopped:
        load("kit").run(lambda: main([*arguments, "--runs", str(tmp_path / "runs")]))
    told = capsys.readouterr()
    assert stopped.value.code == 2 and told.out == "" and told.err.count("\n") == 1
    assert "cannot download http://127.0.0.1" in told.err and "drawn digits" in told.err
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot make the folder"):
        pictures.load_pictures(tmp_path / "file" / "below", download=True)


def test_drawn_digits_are_pictures_of_their_labels(load):
    data = load("pictures").draw_digits(60)
    assert data.images.shape == (60, 1, 28, 28)
    assert data.images.amin() == -1 and data.images.amax() > 0.9
    assert data.labels.tolist() == [*range(10)] * 6
    # Each is nearest to another of its own label, as a rule.
    apart = torch.cdist(*(data.images.flatten(1),) * 2).fill_diagonal_(torch.inf)
    assert (data.labels[apart.argmin(1)] == data.labels).float().mean() > 0.5


@pytest.mark.parametrize("name", ["moons", "ring"])
def test_the_energy_distance_is_zero_for_one_distribution(load, name: str):
    points = load("points")
    draw = getattr(points, name)
    assert abs(points.energy_distance(draw(800, 0), draw(800, 1))) < 0.02
    assert points.energy_distance(points.moons(800, 0), points.ring(800, 1)) > 0.1
