"""Video VAEs by name: `builtin:`, `builtin:<folder>`, `diffusers:<repo>`.

In: a name. Out: a `VideoVAE`. Never downloads anything that was not named.
"""

from pathlib import Path

from pipeline.errors import ModelError
from tokenizer_stage.vae.builtin import BUILTIN_FOLDER, VideoVAE, load_builtin


def load_vae(name: str) -> VideoVAE:
    """The VAE of that name, ready on the CPU, in float32."""
    scheme, _, rest = name.partition(":")
    if scheme == "builtin":
        return load_builtin(Path(rest) if rest else BUILTIN_FOLDER)
    if scheme == "diffusers" and rest:
        from tokenizer_stage.vae.diffusers import load_diffusers

        return load_diffusers(rest)
    raise ModelError(f"no VAE named {name!r}", expected="builtin:, builtin:<folder> or diffusers:<repo>")
