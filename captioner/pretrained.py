"""Captioners that others trained: open_clip CoCa models and transformers vision-language models.

In: filmstrips. Out: captions. The weights come from the hub cache, or are downloaded because the
user named them; only safetensors are read. A CoCa captions single frames, so motion and camera are beyond it.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from captioner.caption import DETAILED_PROMPT, SHORT_PROMPT, Caption, folder_name
from captioner.clip_inner import encode_image, require_inner
from captioner.filmstrip import Filmstrip, decode_jpeg
from pipeline.engine.stage import Failure, Resources, guard
from pipeline.errors import MediaError, ModelError

COCA_FRAMES = 3  # captioned one by one; the middle one gives the short caption


class CocaCaptioner:
    """An open_clip CoCa with pretrained weights: MODEL/TAG, such as coca_ViT-B-32/laion2b_s13b_b90k."""

    def __init__(self, argument: str, max_tokens: int) -> None:
        import open_clip

        require_inner()
        model_name, _, tag = argument.rpartition("/")
        known = open_clip.list_pretrained_tags_by_model(model_name)
        if not model_name.startswith("coca") or tag not in known:
            raise ModelError(
                f"open_clip has no pretrained CoCa {argument!r}",
                expected=f"coca:MODEL/TAG, for example coca:coca_ViT-B-32/{(known or ['TAG'])[0]}",
            )
        try:
            model, _, self._preprocess = open_clip.create_model_and_transforms(model_name, pretrained=tag)
        except (OSError, RuntimeError) as error:
            raise ModelError(
                f"cannot load {argument}: {error}", fix="allow the download once, or fill the hub cache"
            ) from error
        self._model = model.eval()
        self._tokenizer = open_clip.get_tokenizer(model_name)
        self._limit = min(max_tokens, model.context_length - 1)
        self.name = f"coca:{argument}"
        self.dir_name = folder_name("coca", argument)
        self.weights_sha256 = hashlib.sha256(self.name.encode()).hexdigest()
        self.resources = Resources(cpus=1, memory_gb=2 + _weights_gb(model))

    def caption(self, strips: Sequence[Filmstrip]) -> list[Caption | Failure]:
        return [guard(lambda strip=strip: self._caption_one(strip)) for strip in strips]  # type: ignore[misc]

    @torch.inference_mode()
    def _caption_one(self, strip: Filmstrip) -> Caption:
        if not strip.frames:
            raise MediaError(f"clip {strip.clip_id} has no filmstrip frames")
        count = min(COCA_FRAMES, len(strip.frames))
        places = [round((i + 0.5) / count * (len(strip.frames) - 1)) for i in range(count)]
        pictures = [self._preprocess(decode_jpeg(strip.frames[i], strip.clip_id)) for i in places]
        images = torch.stack(pictures)  # [N, 3, S, S]
        latent, tokens = encode_image(self._model, images)  # [N, D], [N, Q, D]
        start, end = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id
        ids, log_probability = greedy(self._model, latent, tokens, start, end, self._limit)
        texts = [_sentence(self._tokenizer.decode(row)) for row in ids]
        short = texts[count // 2]
        text_latent = self._model.encode_text(self._tokenizer([short]))  # [1, D]
        return Caption(
            short=short,
            detailed=" ".join(dict.fromkeys(texts)),
            confidence=log_probability,
            alignment=float((latent @ text_latent.T).mean()),
        )


def greedy(
    model: Any, latent: Tensor, tokens: Tensor, start: int, end: int, limit: int
) -> tuple[list[list[int]], float]:
    """Most likely token after token, with open_clip's own forward (no cache): word ids of each image, without
    start and end, and the mean log-probability over all of them."""
    ids = torch.full((len(latent), 1), start)  # [N, 1]
    open_rows = torch.ones(len(latent), dtype=torch.bool)
    total, count = 0.0, 0
    for _ in range(limit - 1):
        answer = model(None, ids, image_latent=latent, image_embs=tokens, output_labels=False)
        best, chosen = answer["logits"][:, -1].float().log_softmax(-1).max(-1)  # [N], [N]
        total += float(best[open_rows].sum())
        count += int(open_rows.sum())
        ids = torch.cat([ids, torch.where(open_rows, chosen, end).unsqueeze(1)], 1)  # [N, L+1]
        open_rows = open_rows & (chosen != end)
        if not open_rows.any():
            break
    words = [[t for t in row if t not in (start, end)] for row in ids.tolist()]
    return words, total / max(1, count)


def _sentence(text: str) -> str:
    text = " ".join(text.split()).rstrip(" .")
    return f"{text[:1].upper()}{text[1:]}."


class HfCaptioner:
    """A transformers image-text-to-text model that chats about several images (Qwen-VL, SmolVLM, …)."""

    def __init__(self, repo: str, max_tokens: int) -> None:
        try:
            from transformers import AutoModelForImageTextToText, AutoProcessor
        except ImportError as error:
            raise ModelError(f"hf:{repo} needs transformers", fix="pip install 'framemill[hf]'") from error
        try:
            self._processor = AutoProcessor.from_pretrained(repo)
            self._model = AutoModelForImageTextToText.from_pretrained(
                repo,
                use_safetensors=True,
                dtype="auto",
            ).eval()  # on the CPU: the process that plans the work loads it too, and must leave the GPU alone
        except (OSError, ValueError) as error:
            raise ModelError(
                f"cannot load hf:{repo}: {error}", expected="an image-text-to-text repository or folder"
            ) from error
        self._max_tokens = max_tokens
        self.name = f"hf:{repo}"
        self.dir_name = folder_name("hf", repo)
        revision = getattr(self._model.config, "_commit_hash", None) or repo
        self.weights_sha256 = hashlib.sha256(
            f"{repo} {revision} {SHORT_PROMPT} {DETAILED_PROMPT}".encode()
        ).hexdigest()
        self.resources = Resources(cpus=1, gpus=1, memory_gb=2 + _weights_gb(self._model))

    def caption(self, strips: Sequence[Filmstrip]) -> list[Caption | Failure]:
        return [guard(lambda strip=strip: self._caption_one(strip)) for strip in strips]  # type: ignore[misc]

    @torch.inference_mode()
    def _caption_one(self, strip: Filmstrip) -> Caption:
        images = [decode_jpeg(frame, strip.clip_id) for frame in strip.frames]
        short, _ = self._ask(images, SHORT_PROMPT)
        detailed, confidence = self._ask(images, DETAILED_PROMPT)
        return Caption(short=short, detailed=detailed, confidence=confidence)

    def _ask(self, images: Sequence[Any], prompt: str) -> tuple[str, float]:
        if torch.cuda.is_available():
            self._model.to("cuda")
        content = [*({"type": "image", "image": image} for image in images), {"type": "text", "text": prompt}]
        inputs = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self._model.device)
        out = self._model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=self._max_tokens,
            return_dict_in_generate=True,
            output_scores=True,
        )
        written = out.sequences[0, inputs["input_ids"].shape[1] :]  # [L]
        scores = torch.stack([s[0].float().log_softmax(-1) for s in out.scores])  # [L, V]
        confidence = float(scores.gather(1, written[: len(scores)].unsqueeze(1)).mean())
        return " ".join(self._processor.decode(written, skip_special_tokens=True).split()), confidence


def _weights_gb(model: torch.nn.Module) -> float:
    return sum(value.numel() * value.element_size() for value in model.parameters()) / 2**30
