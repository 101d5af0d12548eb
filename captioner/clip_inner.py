"""The inner members of open_clip that this project calls, in one place.

In: open_clip's towers and tensors. Out: what the member gives. open_clip promises none of them, so before a
model is built `require_inner` checks that the installed version has them. Never: any other use of open_clip.
"""

from collections.abc import Sequence
from importlib.metadata import version

from open_clip.coca_model import CoCa
from open_clip.transformer import VisionTransformer
from torch import Tensor

from pipeline.errors import ModelError

INNER = ((VisionTransformer, "_embeds"), (VisionTransformer, "_pool"), (CoCa, "_encode_image"))


def require_inner(members: Sequence[tuple[type, str]] = INNER) -> None:
    """ModelError when the installed open_clip lacks one of the (class, member)."""
    missing = [f"{kind.__name__}.{name}" for kind, name in members if not hasattr(kind, name)]
    if missing:
        raise ModelError(
            f"open_clip {version('open_clip_torch')} has no {', '.join(missing)}",
            expected="open_clip 3.3",
            fix="pip install 'open_clip_torch>=3.3,<3.4'",
        )


def embed_patches(visual: VisionTransformer, pixels: Tensor) -> Tensor:
    """Pixels [N, 3, S, S] → the places of each picture [N, 1 + P, D], before any layer."""
    return visual._embeds(pixels)


def pool_patches(visual: VisionTransformer, places: Tensor) -> tuple[Tensor, Tensor]:
    """Places [B, N, D] → what the two poolers make of them: [B, 1, D] and [B, Q, D]."""
    pooled, tokens = visual._pool(places)
    return pooled, tokens


def encode_image(model: CoCa, images: Tensor) -> tuple[Tensor, Tensor]:
    """Images [N, 3, S, S] → a CoCa's normalised vector [N, D] and caption tokens [N, Q, D] of each."""
    latent, tokens = model._encode_image(images)
    return latent, tokens
