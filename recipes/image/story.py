"""A story in six panels with one character: they share a part of their noise and of their words."""

from __future__ import annotations

import numpy as np
import torch

from recipes import studio

CHARACTER = "a frog"
SCENES = (
    "to the left of a castle",
    "to the left of a dragon",
    "to the left of a sailboat",
    "to the left of a crown",
    "to the left of a birthday cake",
    "to the left of a bed",
)
SHARED = 0.85  # of the noise where the character is to be, on a sphere; elsewhere, half as much


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "image")
    options.add_argument("character", nargs="?", default=CHARACTER)
    options.add_argument("--scenes", nargs="+", default=list(SCENES))
    args = studio.read(options, argv)
    scenes = args.scenes[:2] if args.quick else args.scenes
    paths = studio.files(args, "story.png")

    from imagediff.sheets import captioned_sheet
    from shared.generation import sample_latents

    pipeline = studio.pictures(args.image_model)
    prompts = [f"{args.character} {scene}" for scene in scenes]
    plan = [
        pipeline.plan(prompt, seed=args.seed + 1 + i, steps=args.steps)[0]
        for i, prompt in enumerate(prompts)
    ]
    shape = pipeline.latent_shape(plan[0].size)

    @torch.inference_mode()
    def panels(shared: float) -> list:
        with studio.watched(args.steps * len(plan)) as tick:
            made = [
                sample_latents(
                    pipeline.denoise_fn([one]), one, pipeline.noise_schedule, [one.seed], shape,
                    pipeline.device, begin=beginning(shape, args.seed, one.seed, shared),
                    callback=tick,
                )
                for one in plan
            ]  # fmt: skip
        return [pipeline.decode(latents)[0] for latents in made]

    story, strangers = panels(SHARED), panels(0.0)
    page = captioned_sheet(story, prompts, columns=3)
    studio.save_picture(paths[0], page, "a story", plan)
    alike, unlike = likeness(story), likeness(strangers)
    return studio.finish(
        paths, {"left halves apart, levels": alike, "with noise of their own": unlike}
    )


def beginning(shape: tuple[int, int, int], common: int, own: int, shared: float) -> torch.Tensor:
    """Unit noise (1 c h w) of which the left half is mostly that of the seed ``common``."""
    from shared.noise import seeded_noise

    first, second = seeded_noise([common, own], shape)
    share = torch.full(shape, shared / 2)
    share[..., : shape[2] // 2] = shared
    # Variances add up to 1, so that it is noise as the model knows it.
    return (share.sqrt() * first + (1 - share).sqrt() * second)[None]


def likeness(pictures: list) -> float:
    """The mean distance of the pictures' left halves from each other, in grey levels."""
    halves = [np.asarray(one, float)[:, : one.width // 2] for one in pictures]
    pairs = [np.abs(a - b).mean() for i, a in enumerate(halves) for b in halves[:i]]
    return float(np.mean(pairs))


if __name__ == "__main__":
    studio.run(main)
