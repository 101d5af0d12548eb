"""Video VAEs by name: `builtin:`, `builtin:<folder>`, `diffusers:<repo>`.

In: a name. Out: a `VideoVAE`. Never downloads anything that was not named.
"""

from pipeline.bundle import parse_name
from tokenizer_stage.vae.builtin import VideoVAE, load_builtin
from tokenizer_stage.vae.description import FORMS, builtin_folder


def load_vae(name: str) -> VideoVAE:
    """The VAE of that name, ready on the CPU, in float32; `run_on` takes it elsewhere."""
    scheme, argument = parse_name(name, "VAE", FORMS)
    if scheme == "builtin":
        return load_builtin(builtin_folder(argument))
    from tokenizer_stage.vae.diffusers import load_diffusers

    return load_diffusers(argument)
