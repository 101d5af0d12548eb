"""Video VAEs by name: `builtin:`, `builtin:<folder>`, `diffusers:<repo>`.

In: a name. Out: a `VideoVAE`. Never downloads anything that was not named.
"""

import torch

from pipeline.bundle import parse_name
from tokenizer_stage.vae.builtin import VideoVAE, load_builtin
from tokenizer_stage.vae.description import FORMS, builtin_folder


def load_vae(name: str, device: str = "") -> VideoVAE:
    """The VAE of that name, in float32, on that device ("cpu", "cuda"); "": on a GPU, where there is one and
    the VAE asks for it. `run_on` takes it elsewhere."""
    scheme, argument = parse_name(name, "VAE", FORMS)
    vae: VideoVAE
    if scheme == "builtin":
        vae = load_builtin(builtin_folder(argument))
    else:
        from tokenizer_stage.vae.diffusers import load_diffusers

        vae = load_diffusers(argument)
    vae.run_on(device or vae_device(vae))
    return vae


def vae_device(vae: VideoVAE) -> str:
    """Where a VAE runs outside a stage: on a GPU, where there is one and the VAE asks for it."""
    return "cuda" if vae.resources.gpus and torch.cuda.is_available() else "cpu"
