"""Tiny VAEs of diffusers' own classes with random weights, saved in the layout that real checkpoints have."""

from pathlib import Path
from typing import Any

import pytest
import torch

BLOCKS = (8, 8, 8, 8)
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "wan21": (
        "AutoencoderKLWan",
        {"base_dim": 8, "z_dim": 4, "latents_mean": [0.5] * 4, "latents_std": [2.0] * 4},
    ),
    "wan22": (
        "AutoencoderKLWan",
        {
            "base_dim": 8,
            "decoder_base_dim": 8,
            "z_dim": 6,
            "is_residual": True,
            "in_channels": 12,
            "out_channels": 12,
            "patch_size": 2,
            "scale_factor_spatial": 16,
            "latents_mean": [0.5] * 6,
            "latents_std": [2.0] * 6,
        },
    ),
    "qwen": (
        "AutoencoderKLQwenImage",
        {"base_dim": 8, "z_dim": 4, "latents_mean": [0.5] * 4, "latents_std": [2.0] * 4},
    ),
    "hunyuan": (
        "AutoencoderKLHunyuanVideo",
        {"latent_channels": 4, "block_out_channels": BLOCKS, "layers_per_block": 1, "norm_num_groups": 4},
    ),
    "hunyuan15": (
        "AutoencoderKLHunyuanVideo15",
        {"latent_channels": 4, "block_out_channels": (8, 8, 8, 16, 16), "layers_per_block": 1},
    ),
    "ltx": (
        "AutoencoderKLLTXVideo",
        {
            "latent_channels": 8,
            "block_out_channels": BLOCKS,
            "decoder_block_out_channels": BLOCKS,
            "layers_per_block": (1, 1, 1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1, 1, 1),
        },
    ),
    "ltx2": (
        "AutoencoderKLLTX2Video",
        {
            "latent_channels": 8,
            "block_out_channels": (16, 32, 64, 128),
            "decoder_block_out_channels": (16, 32, 64),
            "layers_per_block": (1, 1, 1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1, 1),
            "spatial_compression_ratio": 32,
            "temporal_compression_ratio": 8,
        },
    ),
    "cogvideox": (
        "AutoencoderKLCogVideoX",
        {"latent_channels": 4, "block_out_channels": BLOCKS, "layers_per_block": 1, "norm_num_groups": 4},
    ),
    "cosmos8": (
        "AutoencoderKLCosmos",
        {
            "encoder_block_out_channels": (8, 8, 8, 8),
            "decode_block_out_channels": (8, 8, 8, 8),
            "attention_resolutions": (32,),
            "num_layers": 1,
        },
    ),
    "cosmos4": (
        "AutoencoderKLCosmos",
        {
            "encoder_block_out_channels": (8, 8, 8, 8),
            "decode_block_out_channels": (8, 8, 8, 8),
            "attention_resolutions": (32,),
            "num_layers": 1,
            "temporal_compression_ratio": 4,
            "latents_mean": None,
            "latents_std": None,
        },
    ),
    "mochi": (
        "AutoencoderKLMochi",
        {
            "encoder_block_out_channels": (32, 32, 32, 32),
            "decoder_block_out_channels": (32, 32, 32, 32),
            "layers_per_block": (1, 1, 1, 1, 1),
            "latent_channels": 12,
        },
    ),
    "allegro": (
        "AutoencoderKLAllegro",
        {
            "block_out_channels": BLOCKS,
            "layers_per_block": 1,
            "latent_channels": 4,
            "norm_num_groups": 2,
            "sample_size": 128,
        },
    ),
    "magvit": (
        "AutoencoderKLMagvit",
        {"latent_channels": 4, "block_out_channels": BLOCKS, "layers_per_block": 1, "norm_num_groups": 4},
    ),
    "kl": (
        "AutoencoderKL",
        {
            "latent_channels": 4,
            "block_out_channels": BLOCKS,
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "norm_num_groups": 4,
            "scaling_factor": 0.5,
            "shift_factor": 0.1,
        },
    ),
    "dc": (
        "AutoencoderDC",
        {
            "latent_channels": 4,
            "attention_head_dim": 4,
            "encoder_block_out_channels": (8, 8, 8, 8),
            "decoder_block_out_channels": (8, 8, 8, 8),
            "encoder_layers_per_block": (1, 1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1, 1),
            "encoder_qkv_multiscales": ((), (), (), ()),
            "decoder_qkv_multiscales": ((), (), (), ()),
            "scaling_factor": 0.4,
        },
    ),
    "tiny": ("AutoencoderTiny", {"encoder_block_out_channels": BLOCKS, "decoder_block_out_channels": BLOCKS}),
}


def tiny_model(name: str) -> Any:
    """The model of that name, always with the same weights."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    kind, config = CONFIGS[name]
    torch.manual_seed(0)
    return getattr(diffusers, kind)(**config).eval()


def saved(name: str, folder: Path) -> str:
    """The name under which that model, saved below a folder as its pipeline has it, is loaded."""
    tiny_model(name).save_pretrained(folder / name / "vae")
    return f"diffusers:{folder / name}"
