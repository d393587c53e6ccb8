"""What `duotone evaluate edit` says of filling, with diffusers' pipeline on the same weights.

That is its StableDiffusionInpaintPipeline. Its scheduler, steps, guidance and dtype are ours; what
it gives is taken as it gives it, and once more with our blended border around what it filled.
"""

import argparse

import shared  # noqa: F401  (lets diffusers be imported beside a CPU-only torch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--methods", help="ours, such as consistency,repaint; by default all")
    arguments = parser.parse_args()

    import numpy as np
    import torch
    from diffusers import (
        DPMSolverMultistepScheduler,
        StableDiffusionInpaintPipeline,
        StableDiffusionPipeline,
    )
    from PIL import Image

    from imagediff import ImagePipeline
    from imagediff.adherence import Prompt, read_evaluation
    from imagediff.edit_cases import FEATHER, FILLED
    from imagediff.editing import border
    from imagediff.evaluate_edit import evaluate_edit
    from imagediff.judge import load_judge
    from imagediff.picture_file import Picture
    from imagediff.pixels import to_rgb, with_pixels

    ours = ImagePipeline.load(arguments.model, "cpu", "float32")
    # Not from_pretrained: it asks the folder which diffusers wrote it, and none did.
    parts = StableDiffusionPipeline.from_pretrained(ours.folder, safety_checker=None).components
    theirs = StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)
    # It takes 4 channels for "latents alone" and refuses others, then works with any number.
    theirs.unet.register_to_config(in_channels=4)
    theirs.set_progress_bar_config(disable=True)
    theirs.scheduler = DPMSolverMultistepScheduler.from_config(
        theirs.scheduler.config, timestep_spacing="trailing", final_sigmas_type="zero"
    )

    def inpaint(scene: Image.Image, free: np.ndarray, prompt: Prompt, seed: int) -> Image.Image:
        hidden = np.where(free[..., None], 127, np.asarray(scene)).astype(np.uint8)
        made = theirs(
            prompt=prompt.text,
            image=Image.fromarray(hidden),
            mask_image=Image.fromarray(free.astype(np.uint8) * 255),
            width=scene.width,
            height=scene.height,
            num_inference_steps=arguments.steps,
            guidance_scale=4.0,
            generator=torch.Generator().manual_seed(seed),
            strength=1.0,
            return_dict=False,
        )
        return made[0][0]  # pyright: ignore[reportIndexIssue]

    def pasted(scene: Image.Image, free: np.ndarray, prompt: Prompt, seed: int) -> Image.Image:
        made = inpaint(scene, free, prompt, seed)
        return to_rgb(with_pixels(Picture(scene, "PNG"), made, border(free, FEATHER)))

    report = evaluate_edit(
        ours,
        load_judge(),
        read_evaluation(),
        methods=None if arguments.methods is None else arguments.methods.split(","),
        others={"diffusers": inpaint, "diffusers, pasted": pasted},
        tasks=FILLED,
        limit=arguments.limit,
        steps=arguments.steps,
    )
    print(report.table())


if __name__ == "__main__":
    main()
