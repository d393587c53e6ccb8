"""Pictures in given colours: a loss of the decoded estimate's colours guides the sampler."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from recipes import studio
from recipes.colours import Colour, read_palette, swatches

COLOURS = ("#0b3954", "#ff6663", "#bfd7ea", "#e0ff4f")
PROMPTS = ("a sailboat", "a cat", "a cupcake", "a rocket")
STEP = 0.35  # see shared.guidance.normalised_step
SOFT = 0.02  # of the soft minimum: squared distance, levels being from -1 to 1


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "image")
    options.add_argument("colours", nargs="*", default=list(COLOURS), help="or a picture file")
    options.add_argument("--prompts", nargs="+", default=list(PROMPTS))
    args = studio.read(options, argv)
    prompts = args.prompts[:1] if args.quick else args.prompts
    paths = studio.files(args, "palette.png")

    from shared.denoiser import DenoiseFn
    from shared.guidance import Loss, gradient, normalised_step

    palette = read_palette(args.colours)
    pipeline = studio.pictures(args.image_model)

    def guide(denoise: DenoiseFn) -> DenoiseFn:
        loss = Loss(lambda latents: off_palette(pipeline.codec.decode(latents), palette))
        return gradient(denoise, [loss], normalised_step(STEP), through_denoiser=False)

    plan = pipeline.plan(prompts, seed=args.seed, steps=args.steps)
    with studio.watched(2 * args.steps * len(prompts)) as tick:
        plain = list(pipeline.generate(plan, tick))
        guided = list(pipeline.generate(plan, tick, guidances=[guide]))
    width, height = plain[0].size
    page = Image.new("RGB", (width * len(prompts), 2 * height + 24), "white")
    for number, pair in enumerate(zip(plain, guided, strict=True)):
        for row, picture in enumerate(pair):
            page.paste(picture, (number * width, row * height))
    page.paste(swatches(palette, (page.width, 20)), (0, 2 * height + 4))
    studio.save_picture(paths[0], page, "plain, and guided to a palette", plan)
    return studio.finish(paths, {
        "distance to the palette without guidance, levels": distance(plain, palette),
        "with it": distance(guided, palette),
    })  # fmt: skip


def off_palette(images: Tensor, palette: list[tuple[float, Colour]]) -> Tensor:
    """How far pictures (b 3 h w) in [-1, 1] are from the palette: (b,).

    Each pixel's squared distance to the colour that is nearest, softly, and how far the share of
    pixels that each colour has is from what it should have.
    """
    colours = torch.tensor([c for _, c in palette]).to(images) / 127.5 - 1  # n 3
    shares = torch.tensor([s for s, _ in palette]).to(images)
    apart = (images[:, None] - colours[:, :, None, None]).square().sum(2)  # b n h w
    belongs = (-apart / SOFT).softmax(1)
    near = (belongs * apart).sum(1).mean((1, 2))
    return near + (belongs.mean((2, 3)) - shares).square().sum(1)


def distance(pictures: list[Image.Image], palette: list[tuple[float, Colour]]) -> float:
    """The mean distance of pixels to the nearest colour of the palette, in grey levels."""
    colours = np.array([colour for _, colour in palette], float)
    pixels = np.concatenate([np.asarray(one, float).reshape(-1, 3) for one in pictures])
    return float(np.linalg.norm(pixels[:, None] - colours, axis=2).min(axis=1).mean())


if __name__ == "__main__":
    studio.run(main)
