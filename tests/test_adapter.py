"""The adapter: what the network is told, how it is kept, and pictures made with it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Duotone
from PIL import Image
from safetensors.torch import load_file
from tiny_adapter import write_tiny_adapter

from imagediff import ImagePipeline
from imagediff.adapter import AdapterInputs, Told, encode_phrases
from imagediff.layout_settings import Region
from imagediff.png import open_png
from shared.checkpoints import load_adapted, load_unet
from shared.conditioning import Conditioning
from shared.editing import Known
from shared.errors import UserError
from shared.low_rank import begin_with, difference, make_low_rank, plain_state, take_more_inputs
from shared.noise import seeded_noise
from shared.text import TextEncoder
from shared.unet import UNet

STEPS = ("--steps", 2)
LEFT, RIGHT = Region("a red apple", box=(0, 0, 16, 32)), Region("a dog", box=(16, 0, 16, 32))


@pytest.fixture(scope="module")
def adapted_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted") / "adapted"
    write_tiny_adapter(tiny_model, folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(adapted_model: Path) -> ImagePipeline:
    return ImagePipeline.load(adapted_model, "cpu", "float32").adapted


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


# Further inputs of a network


def test_further_inputs_are_heeded_by_nothing_at_first(tiny_model: Path):
    plain = load_unet(tiny_model / "unet")
    wide = UNet.from_config(plain.config | {"in_channels": 7})
    wide.conv_in = load_unet(tiny_model / "unet").conv_in
    wide.load_state_dict(plain.state_dict())
    take_more_inputs(wide.conv_in, 3)
    make_low_rank(wide, 2)
    x, concat = torch.randn(2, 4, 8, 8), torch.randn(2, 3, 8, 8)
    context, time = torch.randn(2, 12, 16), torch.tensor([3.0, 700.0])
    before = wide(x, time, Conditioning(context=context, concat=concat))
    torch.testing.assert_close(before, plain(x, time, Conditioning(context=context)))
    trained = {name for name, parameter in wide.named_parameters() if parameter.requires_grad}
    assert "conv_in.parametrizations.weight.0.more" in trained
    assert all(".parametrizations." in name and "original" not in name for name in trained)


def test_a_difference_can_be_gone_on_from(tiny_model: Path):
    def ready(seed: int) -> UNet:
        torch.manual_seed(0)
        network = load_unet(tiny_model / "unet")
        take_more_inputs(network.conv_in, 3)
        make_low_rank(network, 2, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.requires_grad:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))
        return network

    first, second = ready(1), ready(2)
    begin_with(second, difference(first))
    expected, found = plain_state(first), plain_state(second)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert found["conv_in.weight"].shape[1] == 7
    other = load_unet(tiny_model / "unet")
    make_low_rank(other, 1)
    with pytest.raises(UserError, match="does not fit"):
        begin_with(second, difference(other))


def test_an_adapter_loads_as_it_was_trained(tiny_model: Path, adapted_model: Path):
    files = [path for path in (adapted_model / "adapter").rglob("*") if path.is_file()]
    assert sorted(path.suffix for path in files) == [".json", ".json", *[".safetensors"] * 2]
    for name in ("unet", "vae", "text_encoder"):
        (weights,) = (tiny_model / name).glob("*.safetensors")
        assert weights.read_bytes() == (adapted_model / name / weights.name).read_bytes()
    base = load_file(tiny_model / "unet" / "diffusion_pytorch_model.safetensors")
    network = load_adapted(adapted_model).network
    state = network.state_dict()
    assert torch.equal(state["conv_in.weight"][:, :4], base["conv_in.weight"])
    assert state["conv_in.weight"][:, 4:].abs().min() > 0


# What it is told


def test_channels_by_hand():
    inputs = AdapterInputs(text=2, phrases=1, latents=1)
    with torch.no_grad():
        inputs.project.weight.copy_(torch.tensor([[2.0, -1.0]]))
    told = Told(
        shares=torch.tensor([[[[0.5, 0.0]], [[0.25, 1.0]]]]),
        phrases=torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]),
        said=torch.ones(1),
        free=torch.tensor([[[[1.0, 0.0]]]]),
        known=torch.tensor([[[[7.0, 9.0]]]]),
    )
    expected = [[[0.75, -1.0]], [[0.75, 1.0]], [[1.0, 1.0]], [[1.0, 0.0]], [[0.0, 9.0]]]
    assert inputs(told)[0].tolist() == expected
    unsaid = Told(told.shares, told.phrases, torch.zeros(1), told.free, told.known)
    assert inputs(unsaid)[0].tolist() == [[[0.0, 0.0]]] * 3 + expected[3:]


def test_a_phrase_is_encoded_by_the_end_of_its_words(tiny_model: Path):
    text = TextEncoder.load(tiny_model)
    both = encode_phrases(text, ["a red apple", "a dog"])
    assert torch.equal(both[1], encode_phrases(text, ["a dog"])[0])
    ids = text.tokenize(["a dog"])[0].tolist()
    assert torch.equal(both[1], text.encode(["a dog"])[0, ids.index(ids[-1])])


def test_each_window_is_told_its_own_part(pipeline: ImagePipeline):
    """A network that answers with the share of its regions: windows put the whole together."""
    inputs, seen = pipeline.inputs, []
    assert inputs is not None

    def spy(x, sigma, cond, copies=1):
        seen.append(tuple(x.shape))
        assert cond.concat is not None and len(cond.concat) == len(cond.context)
        share = cond.concat[:, inputs.config["phrases"]][:, None]
        return share.expand(-1, x.shape[1], -1, -1)

    (settings,) = pipeline.plan(
        "a dog", size=(64, 64), guidance_scale=1.0, layout=(Region("a dog", box=(8, 16, 40, 40)),)
    )
    denoiser = pipeline.denoiser
    original = denoiser.forward
    try:
        denoiser.forward = spy  # pyright: ignore[reportAttributeAccessIssue]
        x = torch.zeros(1, 4, 16, 16)
        found = pipeline.denoise_fn([settings])(x, torch.ones(1))
    finally:
        denoiser.forward = original
    assert len(seen) > 1 and all(shape[2:] == (8, 8) for shape in seen)
    expected = torch.zeros(16, 16)
    expected[4:14, 2:12] = 1
    torch.testing.assert_close(found[0, 0], expected)


def test_what_is_free_tells_nothing(pipeline: ImagePipeline):
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., :4] = True
    latents = seeded_noise([1], (4, 8, 8))
    (settings,) = pipeline.plan("a dog", size=(32, 32))

    def denoised(latents: torch.Tensor) -> torch.Tensor:
        denoise = pipeline.denoise_fn([settings], Known(latents, mask))
        return denoise(seeded_noise([0], (4, 8, 8)), torch.ones(1))

    same, other = latents.clone(), latents.clone()
    same[..., 4:] = 5  # free
    other[..., :4] += 1  # known
    assert torch.equal(denoised(latents), denoised(same))
    assert not torch.allclose(denoised(latents), denoised(other))


def test_a_plain_pipeline_takes_no_layout(tiny_model: Path, adapted_model: Path):
    plain = ImagePipeline.load(adapted_model, "cpu", "float32")
    with pytest.raises(UserError, match="takes no layout"):
        plain("a dog", steps=2, layout=(LEFT,))
    with pytest.raises(UserError, match="has no adapter/"):
        _ = ImagePipeline.load(tiny_model, "cpu", "float32").adapted


def test_the_plain_model_is_the_same_with_an_adapter_beside_it(
    tiny_model: Path, adapted_model: Path
):
    pictures = [
        ImagePipeline.load(model, "cpu", "float32")("a dog", steps=2)[0]
        for model in (tiny_model, adapted_model)
    ]
    assert pictures[0].tobytes() == pictures[1].tobytes()


def test_layouts_make_a_difference_and_each_picture_is_its_own(pipeline: ImagePipeline):
    def made(*layout: Region, count: int = 1) -> list[bytes]:
        pictures = pipeline("a dog", steps=2, seed=3, layout=layout, count=count)
        return [picture.tobytes() for picture in pictures]

    first, second = made(LEFT, RIGHT, count=2)
    assert first == made(LEFT, RIGHT)[0] and first != second
    assert len({first, *made(), *made(LEFT), *made(RIGHT)}) == 4


# From the command line


def boxes(*regions: Region) -> None:
    rows = [{"box": region.box, "what": region.what} for region in regions]
    Path("boxes.json").write_text(json.dumps(rows))


def test_a_layout_s_picture_can_be_made_again_without_its_files(
    duotone: Duotone, adapted_model: Path
):
    boxes(LEFT, RIGHT)
    options = ("--model", adapted_model, *STEPS, "--seed", 1)
    (path,) = duotone("image", "--layout", "boxes.json", *options).out
    assert path == "a-red-apple-to-the-left-of-a-dog-1.png"
    record = json.loads(open_png(Path(path))[1]["duotone"])
    assert record["prompt"] == "a red apple to the left of a dog"
    assert record["layout"][0] == {"what": "a red apple", "box": [0, 0, 16, 32], "outline": None}
    Image.new("RGB", (64, 64), "red").save("map.png")
    (other,) = duotone(
        *("image", "a dog", "--layout", "map.png", "--legend", "red=a dog", "-o", "m.png"), *options
    ).out
    assert not np.array_equal(pixels(path), pixels(other))
    Path("boxes.json").unlink()
    Path("map.png").unlink()
    for made in (path, other):
        assert duotone("replay", made, "--model", adapted_model).out[-1] == "identical"


def test_the_boxes_of_all_of_a_picture_equal_a_map_of_one_colour(
    duotone: Duotone, adapted_model: Path
):
    options = ("--model", adapted_model, *STEPS, "--seed", 1)
    boxes(Region("a dog", box=(0, 0, 32, 32)))
    duotone("image", "a cat", "--layout", "boxes.json", "-o", "b.png", *options)
    Image.new("RGB", (64, 64), "red").save("map.png")
    duotone(
        *("image", "a cat", "--layout", "map.png", "--legend", "red=a dog", "-o", "m.png"), *options
    )
    assert np.array_equal(pixels("b.png"), pixels("m.png"))


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        (("a dog", "--legend", "red=a dog"), "needs --layout"),
        ((), "say what to make"),
        (("--layout", "none.json"), "cannot read 'none.json'"),
        (("--layout", "none.png", "--legend", "red=a dog"), "there is no file 'none.png'"),
        (("--layout", "boxes.json", "--legend", "red=a dog"), "--legend is for maps"),
        (("--layout", "boxes.json", "--size", "16x32"), "does not lie in the picture of 16x32"),
    ],
)
def test_faults_are_one_line(
    duotone: Duotone, adapted_model: Path, args: tuple[str, ...], fault: str
):
    boxes(LEFT, RIGHT)
    result = duotone("image", *args, "--model", adapted_model)
    assert result.code == 2 and fault in result.err and not result.out
    assert len(result.err.strip().splitlines()) == 1


def test_without_an_adapter_nothing_is_begun(duotone: Duotone, tiny_model: Path):
    boxes(LEFT)
    Image.new("RGB", (32, 32)).save("in.png")
    fill = ("inpaint", "in.png", "a dog", "--box", "0,0,8,8", "--method", "concat")
    for args in (("image", "--layout", "boxes.json"), fill):
        result = duotone(*args, "--model", tiny_model)
        assert result.code == 2 and "has no adapter/" in result.err and not result.out


def test_a_hole_is_filled_by_what_the_network_is_told(duotone: Duotone, adapted_model: Path):
    values = np.random.default_rng(3).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(values).save("in.png")
    Image.fromarray(255 - values).save("other.png")
    made = []
    for name in ("in.png", "other.png"):
        (path,) = duotone(
            *("inpaint", name, "a dog", "--box", "16,0,16,32", "--method", "concat"),
            *("--feather", 0, "--model", adapted_model, *STEPS, "--seed", 1),
        ).out
        made.append(pixels(path))
        assert np.array_equal(made[-1][:, :16], pixels(name)[:, :16])
        assert duotone("replay", path, "--model", adapted_model).out[-1] == "identical"
    assert not np.array_equal(made[0][:, 16:], made[1][:, 16:])


def test_an_adapter_of_another_model_is_refused(adapted_model: Path, tmp_path: Path):
    folder = tmp_path / "broken"
    shutil.copytree(adapted_model, folder)
    (folder / "adapter" / "inputs" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match="has no diffusion_pytorch_model"):
        _ = ImagePipeline.load(folder, "cpu", "float32").adapted
