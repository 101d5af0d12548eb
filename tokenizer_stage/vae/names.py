"""Video VAEs by name: `builtin:`, `builtin:<folder>`, `diffusers:<repo>`.

In: a name. Out: a `VideoVAE`. Never downloads anything that was not named.
"""

from pathlib import Path

from pipeline.bundle import parse_name
from tokenizer_stage.vae.builtin import BUILTIN_FOLDER, VideoVAE, load_builtin

FORMS = ("builtin:", "builtin:<folder>", "diffusers:<repo>")


def load_vae(name: str) -> VideoVAE:
    """The VAE of that name, ready on the CPU, in float32."""
    scheme, argument = parse_name(name, "VAE", FORMS)
    if scheme == "builtin":
        return load_builtin(Path(argument) if argument else BUILTIN_FOLDER)
    from tokenizer_stage.vae.diffusers import load_diffusers

    return load_diffusers(argument)
