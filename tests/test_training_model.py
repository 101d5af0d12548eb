"""The packed transformer: ragged shapes survive the round trip, samples see only themselves."""

import pytest
import torch
from torch import Tensor

from training.attention import segment_attention
from training.config import ModelConfig
from training.layout import Layout, Segments, layout_of, patchify, tokens_of, unpatchify
from training.model import NoiseLevels, VideoDiT
from training.rng import keyed_normal

SHAPES = ((4, 3, 4, 6), (4, 1, 5, 3), (4, 2, 7, 4))


def small_model() -> VideoDiT:
    torch.manual_seed(0)
    model = VideoDiT(ModelConfig(channels=4, text_dim=12, width=32, depth=2, heads=2))
    for parameter in model.parameters():  # leave the zero initialisation, where every answer is 0
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def inputs(shapes: tuple[tuple[int, int, int, int], ...]) -> tuple[Tensor, Layout, list[Tensor | None]]:
    tokens = torch.cat([patchify(keyed_normal(shape, "x", str(shape))) for shape in shapes])
    texts: list[Tensor | None] = [keyed_normal((2 + shape[1], 12), "text", str(shape)) for shape in shapes]
    return tokens, layout_of(shapes, [0.5] * len(shapes)), texts


@pytest.mark.parametrize("shape", [*SHAPES, (4, 1, 1, 1)])
def test_patches_give_the_latent_back(shape: tuple[int, int, int, int]) -> None:
    latent = keyed_normal(shape, "latent")
    tokens = patchify(latent)
    assert tokens.shape == (tokens_of(shape), 16)
    assert torch.equal(unpatchify(tokens, shape), latent)


def test_cells_over_an_odd_edge_are_zero_and_invalid() -> None:
    shape = (4, 1, 3, 2)
    valid = layout_of([shape], [1.0]).valid
    assert int(valid.sum()) == 4 * 3 * 2
    assert not patchify(keyed_normal(shape, "odd"))[~valid].any()


@torch.inference_mode()
def test_packed_and_alone_agree() -> None:
    model = small_model()
    tokens, layout, texts = inputs(SHAPES)
    texts[1] = None
    times = torch.tensor([0.2, 0.9, 0.5])
    together = model(tokens, NoiseLevels.of(times, layout), layout, texts)
    parts = together.split(list(layout.segments.lengths))
    for index, shape in enumerate(SHAPES):
        own, own_layout, _ = inputs((shape,))
        levels = NoiseLevels.of(times[index : index + 1], own_layout)
        alone = model(own, levels, own_layout, [texts[index]])
        torch.testing.assert_close(parts[index], alone, atol=2e-5, rtol=1e-4)


@torch.inference_mode()
def test_a_sample_does_not_see_its_neighbour() -> None:
    model = small_model()
    tokens, layout, texts = inputs(SHAPES)
    levels = NoiseLevels.of(torch.full((3,), 0.5), layout)
    before = model(tokens, levels, layout, texts)
    changed = torch.where((layout.sample == 1)[:, None], tokens + 1, tokens)
    after = model(changed, levels, layout, [texts[0], None, texts[2]])
    others = layout.sample != 1
    torch.testing.assert_close(before[others], after[others], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(before[~others], after[~others], atol=1e-2)


@torch.inference_mode()
def test_place_time_text_and_noise_level_all_matter() -> None:
    model = small_model()
    shape = SHAPES[0]
    tokens, layout, texts = inputs((shape,))
    levels = NoiseLevels.of(torch.tensor([0.5]), layout)
    base = model(tokens, levels, layout, texts)
    slower = layout_of([shape], [2.0])
    assert not torch.allclose(base, model(tokens, levels, slower, texts), atol=1e-4)
    assert not torch.allclose(base, model(tokens, levels, layout, [None]), atol=1e-4)
    later = NoiseLevels.of(torch.tensor([0.6]), layout)
    assert not torch.allclose(base, model(tokens, later, layout, texts), atol=1e-4)
    rolled = model(tokens.roll(1, 0), levels, layout, texts).roll(-1, 0)
    assert not torch.allclose(base, rolled, atol=1e-4)


def test_given_tokens_are_clean_and_the_rest_keep_their_level() -> None:
    _, layout, _ = inputs(SHAPES)
    given = layout.seconds == 0
    levels = NoiseLevels.of(torch.tensor([0.2, 0.9, 0.5]), layout, given)
    per_token = levels.times[levels.token_row]
    assert not per_token[given].any()
    assert torch.equal(per_token[~given], torch.tensor([0.2, 0.9, 0.5])[layout.sample[~given]])
    assert torch.equal(levels.row_sample[levels.token_row], layout.sample)


def test_a_new_model_answers_zero() -> None:
    model = VideoDiT(ModelConfig(channels=4, text_dim=12, width=32, depth=1, heads=2))
    tokens, layout, texts = inputs(SHAPES)
    assert not model(tokens, NoiseLevels.of(torch.rand(3), layout), layout, texts).any()


@pytest.mark.parametrize("written_out", [True, False])
def test_segment_attention_is_attention_within_each_segment(written_out: bool) -> None:
    queries, keys = Segments.of([3, 3, 5]), Segments.of([2, 2, 7])
    q, k, v = (keyed_normal((n, 2, 8), name) for n, name in ((11, "q"), (11, "k"), (11, "v")))
    limit = 10**9 if written_out else 0
    out = segment_attention(q, k, v, queries, keys, written_out_scores=limit)
    q_of = torch.repeat_interleave(torch.arange(3), torch.tensor(queries.lengths))
    k_of = torch.repeat_interleave(torch.arange(3), torch.tensor(keys.lengths))
    scores = torch.einsum("qhd,khd->hqk", q, k) / 8**0.5
    scores = scores.masked_fill(q_of[:, None] != k_of, float("-inf"))
    expected = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)


def test_an_empty_segment_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Segments.of([3, 0])


@pytest.mark.gpu
def test_cuda_attention_agrees_with_the_loop() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    queries, keys = Segments.of([30, 5, 64]), Segments.of([7, 20, 64])
    q = keyed_normal((99, 2, 64), "q").bfloat16()
    k, v = (keyed_normal((91, 2, 64), name).bfloat16() for name in "kv")
    expected = segment_attention(q, k, v, queries, keys)
    on_gpu = segment_attention(
        q.cuda(), k.cuda(), v.cuda(), Segments.of([30, 5, 64], "cuda"), Segments.of([7, 20, 64], "cuda")
    )
    torch.testing.assert_close(on_gpu.cpu(), expected, atol=2e-2, rtol=2e-2)
