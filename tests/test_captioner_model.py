"""VideoCoCa: what it must see, what it must ignore, and that cached generation equals the plain forward."""

from pathlib import Path

import pytest
import torch

from captioner.clip_inner import INNER, require_inner
from captioner.generate import TextState, generate
from captioner.model import (
    TOKENIZER_NAME,
    CaptionerConfig,
    VideoCoCa,
    load_builtin,
    load_model,
    losses,
    save_model,
)
from captioner.tokenizer import train_tokenizer
from pipeline.bundle import RECORD_NAME, WEIGHTS_NAME
from pipeline.errors import ModelError

TOKENIZER = train_tokenizer(["A red circle moves left.", "A blue star grows."] * 9, 320, 32)
SIZES = CaptionerConfig(
    vocab_size=TOKENIZER.vocab_size,
    image_px=32,
    width=24,
    heads=2,
    layers=2,
    time_layers=1,
    text_layers=1,
    decoder_layers=2,
    pool_queries=4,
    context_length=32,
)


@pytest.fixture(scope="module")
def model() -> VideoCoCa:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = VideoCoCa(SIZES, TOKENIZER)
        for name, weight in made.time_blocks.named_parameters():  # as after training: time matters
            if name.endswith(("out_proj.weight", "c_proj.weight")):
                torch.nn.init.normal_(weight, std=0.3)
        torch.nn.init.normal_(made.time_embedding)
    return made.eval().requires_grad_(False)


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.randint(
        0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def times(*values: float) -> torch.Tensor:
    return torch.tensor([values, values])


def test_frame_order_matters(model: VideoCoCa, frames: torch.Tensor) -> None:
    forward = model.encode_video(frames, times(0, 1, 2, 3))[1]
    backward = model.encode_video(frames.flip(1), times(0, 1, 2, 3))[1]
    assert (forward - backward).abs().max() > 1e-3


def test_without_temporal_positions_order_would_not_matter(model: VideoCoCa, frames: torch.Tensor) -> None:
    at_once = times(0, 0, 0, 0)  # all frames share one position: the model is then blind to order
    forward = model.encode_video(frames, at_once)[1]
    backward = model.encode_video(frames.flip(1), at_once)[1]
    assert (forward - backward).abs().max() < 1e-5


def test_only_relative_times_matter(model: VideoCoCa, frames: torch.Tensor) -> None:
    early = model.encode_video(frames, times(0, 1, 2, 3))[0]
    assert torch.allclose(early, model.encode_video(frames, times(10, 12, 14, 16))[0], atol=1e-5)
    assert not torch.allclose(early, model.encode_video(frames, times(0, 1, 1.1, 3))[0], atol=1e-5)


def test_clips_do_not_see_their_batch(model: VideoCoCa, frames: torch.Tensor) -> None:
    together = model.encode_video(frames, times(0, 1, 2, 3))
    alone = model.encode_video(frames[1:], times(0, 1, 2, 3)[1:])
    for a, b in zip(together, alone, strict=True):
        assert torch.allclose(a[1:], b, atol=1e-5)


def test_one_frame_is_an_image(model: VideoCoCa, frames: torch.Tensor) -> None:
    embedding, tokens = model.encode_video(frames[:, :1], torch.zeros(2, 1))
    assert tokens.shape == (2, 4, 24)
    assert torch.allclose(embedding.norm(dim=-1), torch.ones(2))


def test_text_features_do_not_depend_on_padding(model: VideoCoCa) -> None:
    texts = ["A red circle moves left.", "A star."]
    together, alone = model.encode_text_tokens(texts), model.encode_text_tokens(texts[1:])
    assert [len(row) for row in together] == [len(TOKENIZER.encode(text)) for text in texts]
    assert torch.allclose(together[1], alone[0], atol=1e-5)
    assert torch.allclose(model.encode_texts(texts)[1:], model.encode_texts(texts[1:]), atol=1e-5)


def test_cached_logits_equal_uncached(model: VideoCoCa, frames: torch.Tensor) -> None:
    video = model.encode_video(frames, times(0, 1, 2, 3))[1]
    ids = TOKENIZER.encode_batch(["A red circle moves left.", "A blue star grows left."], "short")
    whole = model.predict(video, model.encode_ids(ids)[1])
    state = TextState(model, video)
    stepped = torch.stack([state.step(column) for column in ids.T], dim=1)
    valid = (ids != 0).unsqueeze(-1)
    assert torch.allclose(whole * valid, stepped * valid, atol=1e-4)


def test_generation_follows_the_logits(model: VideoCoCa, frames: torch.Tensor) -> None:
    video = model.encode_video(frames, times(0, 1, 2, 3))[1]
    made = generate(model, video, "detailed", max_tokens=12)
    ids = torch.full((2, 1), TOKENIZER.style_id("detailed"))
    for _ in range(12):
        ids = torch.cat([ids, model.predict(video, model.encode_ids(ids)[1])[:, -1:].argmax(-1)], 1)
    assert [caption.text for caption in made] == [TOKENIZER.decode(row[1:]) for row in ids.tolist()]
    assert all(caption.log_probability < 0 for caption in made)


def test_a_step_of_both_losses_reaches_every_used_weight(frames: torch.Tensor) -> None:
    torch.manual_seed(0)
    fresh = VideoCoCa(SIZES, TOKENIZER)
    for name, weight in fresh.time_blocks.named_parameters():
        if name.endswith(("out_proj.weight", "c_proj.weight")):
            torch.nn.init.normal_(weight, std=0.3)
    parts = losses(fresh, frames, times(0, 1, 2, 3), [TOKENIZER.encode_batch(["A red star.", "A star."])])
    (parts["contrastive"] + parts["captioning"]).backward()
    unused = [name for name, p in fresh.named_parameters() if p.grad is None]
    assert unused == []


def test_saved_weights_come_back(model: VideoCoCa, frames: torch.Tensor, tmp_path: Path) -> None:
    digest = save_model(model, tmp_path, {"steps": 1})
    loaded = load_model(tmp_path)
    assert loaded.weights_sha256 == digest
    assert save_model(loaded, tmp_path / "again", {"steps": 1}) == digest
    a, b = (m.encode_video(frames, times(0, 1, 2, 3))[0] for m in (model, loaded))
    assert torch.allclose(a, b, atol=0.01)  # float16 in the file


def test_text_hash_ignores_the_vision_side(model: VideoCoCa, tmp_path: Path) -> None:
    save_model(model, tmp_path, {})
    changed = load_model(tmp_path)
    changed.time_embedding.data += 1
    save_model(changed, tmp_path / "vision", {})
    changed.text.ln_final.weight.data += 1
    save_model(changed, tmp_path / "text", {})
    hashes = [load_model(folder).text_sha256 for folder in (tmp_path, tmp_path / "vision", tmp_path / "text")]
    assert hashes[0] == hashes[1] != hashes[2]


def test_damaged_or_missing_weights_are_named(model: VideoCoCa, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=RECORD_NAME):
        load_model(tmp_path)
    save_model(model, tmp_path, {})
    weights = tmp_path / WEIGHTS_NAME
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="does not match"):
        load_model(tmp_path)
    save_model(model, tmp_path, {})
    tokenizer = tmp_path / TOKENIZER_NAME
    tokenizer.write_bytes(tokenizer.read_bytes() + b" ")
    with pytest.raises(ModelError, match=TOKENIZER_NAME):
        load_model(tmp_path)


def test_weights_that_float16_cannot_hold_are_not_written(model: VideoCoCa, tmp_path: Path) -> None:
    save_model(model, tmp_path, {})
    before = (tmp_path / WEIGHTS_NAME).read_bytes()
    broken = load_model(tmp_path)
    broken.time_embedding.data[0, 0] = 1e6
    with pytest.raises(ModelError, match="time_embedding"):
        save_model(broken, tmp_path, {})
    assert (tmp_path / WEIGHTS_NAME).read_bytes() == before


def test_an_open_clip_without_the_inner_members_is_named() -> None:
    require_inner()
    with pytest.raises(ModelError, match=r"no VideoCoCa\._gone.*fix: pip install"):
        require_inner((*INNER, (VideoCoCa, "_gone")))


def test_the_bundled_model_loads_without_a_download() -> None:
    model = load_builtin()
    assert model.encode_text_tokens(["A red star."])[0].shape[1] == model.config.width
