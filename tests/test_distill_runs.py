"""`duotone distill` from end to end, on tiny models: students that load, resume and are carried."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Duotone
from safetensors.torch import load_file

from audiodiff import MusicPipeline
from imagediff import ImagePipeline
from shared.checkpoints import load_denoiser, load_student, load_unet
from shared.conditioning import Conditioning
from shared.config import read_config
from shared.distillation.run import METHODS
from shared.distillation.student import plain_network, student_network
from shared.errors import UserError
from shared.guidance import with_scale
from shared.noise import seeded_noise
from shared.settings import GuidanceSettings
from shared.student import Choice, Student, choose_denoiser, read_student
from shared.weights import write_json

ROOT = Path(__file__).parents[1]
COMMON = """
guidance: {low: 1.0, high: 5.0, dim: 8}
guidance_scale: 3.0
loop: {steps: 2, batch_size: 2, warmup: 1, sample_every: 2, learning_rate: 1.0e-2}
"""
CONFIGS = {
    "progressive": COMMON + "teacher_steps: 4\nsteps: 1\nprompts: [a red apple]",
    "guided": COMMON,
    "consistency": COMMON + "rank: 2\nstages: 2",
    "trajectory": COMMON + "paths: 3\nteacher_steps: 4\nsteps: 2\nrank: 2",
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    rows = []
    for i, colour in enumerate([(200, 0, 0), (0, 180, 0), (0, 0, 220)]):
        Image.new("RGB", (32, 32), colour).save(folder / f"{i}.png")
        rows.append(json.dumps({"file_name": f"{i}.png", "text": f"a picture {i}"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import soundfile

    folder = tmp_path_factory.mktemp("clips")
    rows = []
    for i in range(2):
        tone = 0.3 * np.sin(np.arange(44100 * 3) * 0.02 * (i + 1))
        soundfile.write(folder / f"{i}.wav", tone, 44100)
        rows.append(json.dumps({"file_name": f"{i}.wav", "text": "a slow waltz"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return folder


def run(duotone: Duotone, method: str, model: Path, data: Path, out: Path, *more: str) -> str:
    """Its message, or the folder of the student if it went well."""
    config = out.parent / f"{method}.yaml"
    config.write_text(CONFIGS[method])
    args = ["--model", model, "--data", data, "--out", out, "--config", config, *more]
    result = duotone("distill", method, *args)
    assert result.code in (0, 2), result.err
    return str(out) if result.code == 0 else result.err


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", METHODS)
def test_a_student_of_pictures_is_a_model(
    duotone: Duotone, tiny_model: Path, pictures: Path, tmp_path: Path, method: str
) -> None:
    out = tmp_path / "student"
    assert run(duotone, method, tiny_model, pictures, out) == str(out)
    student = read_student(out)
    assert student.method == method and student.guidance == (1, 5)
    rounds = {"progressive": ["2-steps", "1-steps"]}.get(method, [""])
    for name in rounds:
        folder = out / "runs" / "distill" / name
        assert log(folder)[-1]["distance_to_teacher"] > 0
        assert (folder / "samples" / "000002.png").exists()
    pipeline = ImagePipeline.load(out, device="cpu", dtype="float32")
    assert pipeline.denoiser.guidance_dim == 8

    def draw(scale: float) -> np.ndarray:
        (picture,) = pipeline(
            "a red apple", steps=min(student.steps, 2), guidance_scale=scale,
            sampler=student.sampler, schedule=student.schedule,
        )  # fmt: skip
        return np.asarray(picture).astype(float)

    assert draw(1.0).shape == (32, 32, 3)
    assert np.abs(draw(1.0) - draw(5.0)).max() > 0  # trained with a high rate, so that it tells
    with pytest.raises(UserError, match="no negative prompt"):
        pipeline("a red apple", negative_prompt="a dog", steps=1)
    # In use, and to be gone on with.
    assert "--resume" in run(duotone, method, tiny_model, pictures, out)
    before = {path: path.stat().st_size for path in out.rglob("log.jsonl")}
    assert run(duotone, method, tiny_model, pictures, out, "--resume") == str(out)
    assert before == {path: path.stat().st_size for path in out.rglob("log.jsonl")}


@pytest.mark.parametrize("method", ["progressive", "consistency", "trajectory"])
def test_a_student_of_music_is_a_model(
    duotone: Duotone, tiny_music_model: Path, clips: Path, tmp_path: Path, method: str
) -> None:
    out = tmp_path / "student"
    assert run(duotone, method, tiny_music_model, clips, out) == str(out)
    student = read_student(out)
    pipeline = MusicPipeline.load(out, device="cpu", dtype="float32")
    (clip,) = pipeline(
        "a slow waltz", seconds=1, steps=1, sampler=student.sampler, schedule=student.schedule
    )
    assert clip.samples.shape == (2, 44100)


def test_a_student_goes_on_from_the_one_before(
    duotone: Duotone, tiny_model: Path, pictures: Path, tmp_path: Path, monkeypatch
) -> None:
    first = tmp_path / "first"
    run(duotone, "trajectory", tiny_model, pictures, first)
    still = CONFIGS["trajectory"].replace("1.0e-2", "1.0e-9") + f"\ninit: {first}"
    monkeypatch.setitem(CONFIGS, "trajectory", still)
    assert run(duotone, "trajectory", tiny_model, pictures, tmp_path / "second") == str(
        tmp_path / "second"
    )
    before, after = (
        load_file(tmp_path / name / "student/unet/pytorch_lora_weights.safetensors")
        for name in ("first", "second")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert any(tensor.any() for key, tensor in after.items() if key.endswith("lora_B.weight"))
    monkeypatch.setitem(CONFIGS, "trajectory", still.replace("rank: 2", "rank: 3"))
    assert "does not fit" in run(duotone, "trajectory", tiny_model, pictures, tmp_path / "third")


def test_paths_are_walked_once(
    duotone: Duotone, tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "student"
    run(duotone, "trajectory", tiny_model, pictures, out)
    (path,) = (out / "runs" / "distill" / "paths").iterdir()
    walked = path.stat().st_mtime_ns
    assert load_file(path)["states"].shape == (3, 2, 4, 8, 8)
    run(duotone, "trajectory", tiny_model, pictures, out, "--resume")
    assert path.stat().st_mtime_ns == walked
    # Other paths are asked for: they are walked, over those of the run before.
    (out / "runs/distill/checkpoint.safetensors").unlink()
    wider = CONFIGS["trajectory"].replace("high: 5.0", "high: 9.0")
    (tmp_path / "other.yaml").write_text(wider)
    args = ["--model", tiny_model, "--data", pictures, "--out", out, "--resume"]
    assert duotone("distill", "trajectory", *args, "--config", tmp_path / "other.yaml").code == 0
    assert path.stat().st_mtime_ns > walked


def test_a_low_rank_student_can_be_carried_by_its_teacher(
    duotone: Duotone, tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "student"
    run(duotone, "consistency", tiny_model, pictures, out)
    teacher = tmp_path / "teacher"
    shutil.copytree(tiny_model, teacher)
    shutil.copytree(out / "student", teacher / "student")
    carried, whole = load_student(teacher), load_denoiser(out)
    x, sigma = seeded_noise([0], (4, 8, 8)), torch.tensor([2.0])
    cond = with_scale(Conditioning(context=torch.ones(1, 12, 16)), 3.0, 8)
    with torch.no_grad():
        expected = whole(x, sigma, cond)
        torch.testing.assert_close(carried(x, sigma, cond), expected, atol=5e-3, rtol=0)
        plain = load_denoiser(teacher)(x, sigma, Conditioning(context=cond.context))
    assert (plain - expected).abs().max() > 2e-2  # it has learnt something
    size = (out / "student/unet/pytorch_lora_weights.safetensors").stat().st_size
    assert size < 0.5 * (out / "unet/diffusion_pytorch_model.safetensors").stat().st_size


def test_a_consistency_student_opens_in_diffusers(
    duotone: Duotone, tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    diffusers = pytest.importorskip("diffusers")
    out = tmp_path / "student"
    run(duotone, "consistency", tiny_model, pictures, out)
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(
        out, safety_checker=None, local_files_only=True
    )
    assert isinstance(pipe.scheduler, diffusers.LCMScheduler)
    pipe.set_progress_bar_config(disable=True)
    latents = seeded_noise([0], (4, 8, 8))
    theirs = pipe("a cat", num_inference_steps=1, guidance_scale=4.0, latents=latents).images[0]
    ours = ImagePipeline.load(out, device="cpu", dtype="float32")
    (mine,) = ours("a cat", steps=1, guidance_scale=4.0, sampler="lcm", schedule="trailing")
    assert np.abs(np.asarray(mine, float) - np.asarray(theirs, float)).max() <= 1


CHOICES: list[tuple[dict, tuple[bool, str, str]]] = [
    ({}, (True, "lcm", "trailing")),
    ({"steps": 4}, (True, "lcm", "trailing")),
    ({"steps": 5}, (False, "dpm++2m", "karras")),
    ({"quality": True}, (False, "dpm++2m", "karras")),
    ({"guidance_scale": 6.0}, (False, "dpm++2m", "karras")),
    ({"negative_prompt": "a dog"}, (False, "dpm++2m", "karras")),
    ({"guidance": GuidanceSettings(rescale=0.5)}, (False, "dpm++2m", "karras")),
    ({"sampler": "heun"}, (False, "heun", "karras")),
]


@pytest.mark.parametrize("asked, chosen", CHOICES)
def test_few_steps_take_the_student_and_what_it_does_not_take_the_model(
    tmp_path: Path, asked: dict, chosen: tuple[bool, str, str]
) -> None:
    wants = Student("consistency", 4, "lcm", "trailing", (1.0, 5.0))
    plain = {"steps": 2, "guidance_scale": 3.0, "sampler": "dpm++2m", "schedule": "karras"}
    assert not choose_denoiser(tmp_path, **(plain | asked)).student  # it carries none
    write_json(tmp_path / "student" / "student.json", asdict(wants))
    assert choose_denoiser(tmp_path, **(plain | asked)) == Choice(*chosen)
    write_json(tmp_path / "student.json", asdict(wants))  # it is one itself
    own = ("lcm", "trailing") if "sampler" not in asked else ("heun", "karras")
    assert choose_denoiser(tmp_path, **(plain | asked)) == Choice(False, *own)
    (tmp_path / "student.json").write_text('{"method": "guided"}')
    if "sampler" not in asked:
        with pytest.raises(UserError, match="does not tell"):
            choose_denoiser(tmp_path, **(plain | asked))


def test_a_carried_student_is_taken_and_replayed(
    duotone: Duotone, tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    run(duotone, "consistency", tiny_model, pictures, tmp_path / "student")
    teacher = tmp_path / "teacher"
    shutil.copytree(tiny_model, teacher)
    shutil.copytree(tmp_path / "student" / "student", teacher / "student")

    def record(*options: str) -> dict:
        args = ["a red apple", "--model", teacher, "--seed", 0, "--steps", 2, "--json", *options]
        result = duotone("image", *args)
        assert result.code == 0, result.err
        return json.loads(result.out[0])

    made = record("-o", "by_student.png")
    assert made["student"] and made["sampler"] == "lcm"
    assert not record("--quality", "-o", "by_teacher.png")["student"]
    assert not record("--sampler", "ddim", "-o", "by_sampler.png")["student"]
    again = duotone("replay", "by_student.png", "--model", teacher)
    assert "identical" in again.out[-1]


@pytest.mark.parametrize("rank", [0, 2])
def test_a_student_begins_as_its_teacher(tiny_model: Path, rank: int) -> None:
    teacher = load_unet(tiny_model / "unet")
    student = student_network(teacher, 8, rank)
    assert student.config["time_cond_proj_dim"] == 8
    x, time, context = seeded_noise([0], (4, 8, 8)), torch.tensor([7.0]), torch.ones(1, 12, 16)
    plain = Conditioning(context=context)
    with torch.no_grad():
        expected = teacher(x, time, plain)
        for network in (student, plain_network(student)):
            told = network(x, time, with_scale(plain, 4.0, 8))
            torch.testing.assert_close(told, expected, atol=1e-5, rtol=0)
    # The next round's, which takes the scale already.
    again = student_network(plain_network(student), 8, 0)
    assert again.config == student.config


@pytest.mark.parametrize(
    "method, change, told",
    [
        ("progressive", ("teacher_steps: 4", "teacher_steps: 6"), "times factor"),
        ("progressive", ("steps: 1\n", "steps: 4\n"), "times factor"),
        ("guided", ("high: 5.0", "high: 1.0"), "nothing to distil"),
        ("guided", ("low: 1.0", "low: 0.5"), "at least 1"),
        ("consistency", ("stages: 2", "source: data"), "no guidance scale"),
        ("consistency", ("stages: 2", "stages: 0"), "from 1 to 12"),
        ("consistency", ("stages: 2", "stagse: 2"), "stagse"),
    ],
)
def test_faults_of_a_config_are_named(
    tmp_path: Path, method: str, change: tuple[str, str], told: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(CONFIGS[method].replace(*change))
    with pytest.raises(UserError, match=told):
        read_config(path, METHODS[method].config)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("room", ["imagediff", "audiodiff"])
def test_the_project_s_own_configs_are_valid(room: str, method: str) -> None:
    config = read_config(ROOT / room / "configs" / f"distill-{method}.yaml", METHODS[method].config)
    assert config.prompts


def test_bad_input(duotone: Duotone, tiny_model: Path, pictures: Path, tmp_path: Path) -> None:
    def refused(*fragments: str, **given: object) -> None:
        args = {"model": tiny_model, "data": pictures, "out": tmp_path / "out"} | given
        words = [word for key, value in args.items() for word in (f"--{key}", value)]
        result = duotone("distill", "guided", *words)
        assert result.code == 2 and result.err.startswith("Error: ")
        assert all(fragment in result.err for fragment in fragments), result.err

    refused("builtin", "--art image", model="builtin")
    refused("no model or model folder", model="nothing")
    refused("holds a model already", out=tiny_model)
    refused("metadata.jsonl", data=tmp_path)
    refused("cannot read the config", config=tmp_path / "none.yaml")
    assert not (tmp_path / "out").exists()
