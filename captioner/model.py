"""The built-in captioner: open_clip's CoCa, made to watch video.

In: frames uint8 [B, T, 3, S, S] (letterboxed, T ≤ 8, one frame for an image) and their times [B, T].
Out: an embedding of the clip, embeddings of texts, and next-token logits. Never reads a file except its own
weights, never downloads.

VideoCoCa (https://arxiv.org/abs/2212.04979) sends frames one by one through CoCa's image tower and all their
tokens together into its two poolers. Without temporal positions such a model cannot tell a clip from the
same clip reversed, so here learned temporal positions are added and, after each of the last
`time_layers` spatial layers, every place attends over time. Of CoCa (https://arxiv.org/abs/2205.01917) two
things are changed: patches come from four strided convolutions, which learn shapes from far fewer clips
than one 16×16 projection, and a text is pooled at its `<end>` token, which unlike open_clip's appended CLS
does not depend on how far the batch is padded.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from open_clip.coca_model import CoCa
from open_clip.transformer import ResidualAttentionBlock
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from captioner.caption import BUILTIN_DIR, MADE_BY
from captioner.clip_inner import embed_patches, pool_patches, require_inner
from captioner.tokenizer import END_ID, PAD_ID, CaptionTokenizer
from pipeline import bundle
from pipeline.errors import ModelError
from pipeline.settings import build
from pipeline.storage import sha256_hex

TOKENIZER_NAME = "builtin.tokenizer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionerConfig:
    """Sizes of the model. `image_px` is the side of the square a frame is letterboxed into."""

    vocab_size: int
    image_px: int = 112
    max_frames: int = 8
    width: int = 192
    heads: int = 6
    layers: int = 3
    time_layers: int = 2
    text_layers: int = 2
    decoder_layers: int = 2
    pool_queries: int = 32
    context_length: int = 128


class ResidualConv(nn.Module):
    """x + conv(relu(x)): looks one place further around; changes nothing at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(F.relu(x))


class ConvStem(nn.Sequential):
    """Frames [N, 3, S, S] → patches [N, width, S/16, S/16] by four strided 3×3 convolutions and, from a
    quarter of the size down, residual ones: shapes are larger than a patch."""

    def __init__(self, width: int) -> None:
        sizes = (3, 32, 64, 128, width)
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            convolution = nn.Conv2d(before, after, 3, stride=2, padding=1)
            # PyTorch's default would shrink the picture to a thirtieth: the positions would drown it.
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            layers += [nn.ReLU(), convolution] if layers else [convolution]
            if after > 32:
                layers += [ResidualConv(after), ResidualConv(after)]
        super().__init__(*layers)


class VideoCoCa(CoCa):  # type: ignore[misc]
    """CoCa over filmstrips. Its tokenizer and the hashes of what was loaded travel with the model:
    `text_sha256` covers only what `encode_text_tokens` depends on."""

    def __init__(self, config: CaptionerConfig, tokenizer: CaptionTokenizer) -> None:
        require_inner()
        width, heads = config.width, config.heads
        vision = {
            "image_size": config.image_px,
            "patch_size": 16,
            "width": width,
            "head_width": width // heads,
            "layers": config.layers,
            "attentional_pool": "parallel",
            "attn_pooler_queries": config.pool_queries,
            "attn_pooler_heads": heads,
            "output_tokens": True,
        }
        text = {
            "vocab_size": config.vocab_size,
            "width": width,
            "heads": heads,
            "context_length": config.context_length,
            "pad_id": PAD_ID,
            "eos_id": END_ID,
            "pool_type": "eos",
            "output_tokens": True,
        }
        decoder = {"width": width, "heads": heads, "context_length": config.context_length}
        super().__init__(
            width,
            multimodal_cfg={**decoder, "layers": config.decoder_layers},
            text_cfg={**text, "layers": config.text_layers},
            vision_cfg=vision,
            pad_id=PAD_ID,
        )
        self.config = config
        self.tokenizer = tokenizer
        self.weights_sha256 = self.text_sha256 = ""
        self.visual.conv1 = ConvStem(width)
        self.time_blocks = nn.ModuleList(
            ResidualAttentionBlock(width, heads) for _ in range(config.time_layers)
        )
        self.time_embedding = nn.Parameter(torch.empty(config.max_frames, width))
        self._init_new_parameters()

    def _init_new_parameters(self) -> None:
        """What open_clip leaves at PyTorch's default or, for the decoder's output, uninitialised."""
        for positions in (self.visual.positional_embedding, self.time_embedding):
            nn.init.normal_(positions, std=0.5)  # as large as what they are added to
        nn.init.normal_(self.text_decoder.text_projection, std=self.config.width**-0.5)
        for name, weight in self.time_blocks.named_parameters():  # at the start, other frames change nothing
            if name.endswith(("out_proj.weight", "c_proj.weight")):
                nn.init.zeros_(weight)

    # -- video ------------------------------------------------------------------------------------

    def encode_video(self, frames: Tensor, times_s: Tensor) -> tuple[Tensor, Tensor]:
        """Frames uint8 [B, T, 3, S, S], times [B, T] → normalised embedding [B, D], tokens [B, Q, D]."""
        return self.pool(self.encode_places(frames, times_s))

    def encode_places(self, frames: Tensor, times_s: Tensor) -> Tensor:
        """Features of every place of every frame [B, T*(1+P), D]."""
        batch, count = frames.shape[:2]
        pixels = frames.flatten(0, 1).float() / 127.5 - 1.0  # [B*T, 3, S, S]
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        x = embed_patches(self.visual, pixels)  # [B*T, 1+P, D]; the class token is one more place
        when = self._time_positions(times_s).flatten(0, 1).unsqueeze(1)  # [B*T, 1, D]
        first_timed = len(self.visual.transformer.resblocks) - len(self.time_blocks)
        for index, block in enumerate(self.visual.transformer.resblocks):
            x = block(x)
            if index >= first_timed:
                if index == first_timed:
                    x = x + when
                x = self._over_time(self.time_blocks[index - first_timed], x, batch, count)
        return x.view(batch, -1, x.shape[-1])  # [B, T*(1+P), D]

    def pool(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """CoCa's two poolers over all places: normalised embedding [B, D], tokens [B, Q, D]."""
        pooled, tokens = pool_patches(self.visual, places)  # [B, 1, D], [B, Q, D]
        return F.normalize(pooled[:, 0] @ self.visual.proj, dim=-1), tokens

    def _time_positions(self, times_s: Tensor) -> Tensor:
        """[B, T] → [B, T, D]: the table read at the frame's place between the first and the last time."""
        span = (times_s[:, -1:] - times_s[:, :1]).clamp_min(1e-6)  # [B, 1]
        place = (times_s - times_s[:, :1]) / span * (self.config.max_frames - 1)  # [B, T] in 0 … 7
        low = place.floor().long().clamp(0, self.config.max_frames - 2)
        share = (place - low).unsqueeze(-1)  # [B, T, 1]
        return self.time_embedding[low] * (1 - share) + self.time_embedding[low + 1] * share

    @staticmethod
    def _over_time(block: nn.Module, x: Tensor, batch: int, count: int) -> Tensor:
        """Lets each place attend over the T frames. x [B*T, P, D]."""
        places = x.shape[1]
        x = block(x.view(batch, count, places, -1).transpose(1, 2).flatten(0, 1))  # [B*P, T, D]
        return x.view(batch, places, count, -1).transpose(1, 2).flatten(0, 1)  # [B*T, P, D]

    # -- text -------------------------------------------------------------------------------------

    def encode_ids(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Ids [B, L] → normalised embedding [B, D] and features of every token [B, L, D]. open_clip's own
        forward takes only texts of the full context length."""
        tower, length = self.text, ids.shape[1]
        x = tower.token_embedding(ids) + tower.positional_embedding[:length]  # [B, L, D]
        x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:length, :length]))
        end = (ids == END_ID).int().argmax(1)  # [B]
        pooled = x[torch.arange(len(ids), device=ids.device), end] @ tower.text_projection  # [B, D]
        return F.normalize(pooled, dim=-1), x

    def predict(self, video_tokens: Tensor, text_features: Tensor) -> Tensor:
        """Next-token logits [B, L, V]."""
        return self.text_decoder(video_tokens, text_features)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Normalised embeddings [B, D], comparable with `encode_video`'s by dot product."""
        return self.encode_ids(self.tokenizer.encode_batch(texts).to(self.logit_scale.device))[0]

    @torch.inference_mode()
    def encode_text_tokens(self, texts: Sequence[str]) -> list[Tensor]:
        """Features of each text's own tokens, [L_i, D] each, from the unimodal text tower."""
        ids = self.tokenizer.encode_batch(texts).to(self.logit_scale.device)  # [B, L]
        features = self.encode_ids(ids)[1]  # [B, L, D]
        lengths = (ids != PAD_ID).sum(1).tolist()
        return [row[:length].clone() for row, length in zip(features, lengths, strict=True)]


class TagHead(nn.Linear):
    """Used in training only: which tags are true of a clip, read from the single place that shows each best.

    Captions tell a pooled picture apart long before they make the tower look at one small object; a tag's
    score is a soft maximum over places and frames, so its gradient goes straight to the place that shows it
    (tagging beside captioning: https://arxiv.org/abs/2303.05657).
    """

    def __init__(self, width: int, tags: int) -> None:
        super().__init__(width, tags)
        nn.init.constant_(self.bias, -2.0)  # most tags are false of most clips

    def loss(self, places: Tensor, truth: Tensor) -> Tensor:
        """Places [B, N, D] of a batch, truth [B, tags] of zeros and ones."""
        scores = self(places).float()  # [B, N, tags]
        pooled = scores.logsumexp(1) - math.log(scores.shape[1])  # [B, tags]
        return F.binary_cross_entropy_with_logits(pooled, truth, reduction="none").sum(1).mean()


def losses(
    model: VideoCoCa,
    frames: Tensor,
    times_s: Tensor,
    texts: Sequence[Tensor],
    tags: tuple[TagHead, Tensor] | None = None,
) -> dict[str, Tensor]:
    """CoCa's two losses for one batch of clips, averaged over its caption sets (ids [B, L] each), and, with a
    tag head and its truth [B, tags], the tagging loss."""
    places = model.encode_places(frames, times_s)
    video, tokens = model.pool(places)
    labels = torch.arange(len(frames), device=frames.device)
    scale = model.logit_scale.exp().clamp(max=100.0)
    contrastive = captioning = torch.zeros((), device=frames.device)
    for ids in texts:
        text, features = model.encode_ids(ids)
        scores = (scale * video @ text.T).float()  # [B, B]
        contrastive = contrastive + (F.cross_entropy(scores, labels) + F.cross_entropy(scores.T, labels)) / 2
        logits = model.predict(tokens, features[:, :-1])  # [B, L-1, V]
        captioning = captioning + F.cross_entropy(
            logits.flatten(0, 1).float(), ids[:, 1:].flatten(), ignore_index=PAD_ID
        )
    parts = {"contrastive": contrastive / len(texts), "captioning": captioning / len(texts)}
    if tags is not None:
        parts["tagging"] = tags[0].loss(places, tags[1])
    return parts


# -- weights ----------------------------------------------------------------------------------------


def save_model(model: VideoCoCa, folder: Path, training: dict[str, Any]) -> str:
    """Writes weights (float16), tokenizer and, last, the JSON that names their hashes. Returns the hash.
    ModelError, and nothing written, for weights that float16 cannot hold."""
    tensors = {name: value.detach().half().cpu().contiguous() for name, value in model.state_dict().items()}
    bundle.refuse_non_finite({name: bool(value.isfinite().all()) for name, value in tensors.items()}, folder)
    definition = model.tokenizer.definition.encode()
    text = save({name: value for name, value in tensors.items() if name.startswith("text.")})
    description = {
        "model": asdict(model.config),
        "text_sha256": sha256_hex(text + definition),
        "tokenizer_sha256": sha256_hex(definition),
        "training": training,
    }
    return bundle.write(folder, save(tensors), {TOKENIZER_NAME: definition}, description)


def load_model(folder: Path) -> VideoCoCa:
    """The model in a folder that `save_model` wrote, checked against its hashes, on the CPU, in float32.

    Raises:
        ModelError: a file is missing or damaged, or they are not of one training.
    """
    saved = bundle.read(folder, MADE_BY)
    with saved.fitting():
        definition = saved.text(TOKENIZER_NAME)
        if sha256_hex(definition.encode()) != saved.description["tokenizer_sha256"]:
            raise ModelError(f"{folder / TOKENIZER_NAME} does not match {bundle.RECORD_NAME}", fix=MADE_BY)
        config = build(CaptionerConfig, saved.description["model"])
        model = VideoCoCa(config, CaptionTokenizer(definition, config.context_length))
        model.load_state_dict({name: value.float() for name, value in load(saved.weights).items()})
        model.text_sha256 = str(saved.description["text_sha256"])
    model.weights_sha256 = saved.weights_sha256
    return model.eval().requires_grad_(False)


def load_builtin() -> VideoCoCa:
    """The captioner that comes with the repository."""
    return load_model(BUILTIN_DIR)
