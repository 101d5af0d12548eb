"""Every data knob, as frozen dataclasses that read from TOML and `--set section.key=value`.

In: a TOML file and overrides. Out: one `Config`. An unknown key is an error that names the nearest
known one; `fingerprint` turns a section into the hash that keys the parts made with it.
"""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import ConfigError
from pipeline.rule_grammar import rules_of
from pipeline.settings import OF_THE_RUN, checked, load, merge, nested, no_key, positive

DTYPES = ("float32", "bfloat16", "float16")  # that a model may compute in


@dataclass(frozen=True, slots=True, kw_only=True)
class ShotConfig:
    """How a video is cut into shots (pipeline/shots/boundaries.py)."""

    detector: str = "default"  # or content, adaptive, hash, histogram, transnetv2 (shots/detectors.py)
    min_shot_s: float = 0.3  # of two boundaries closer than this the surer one stays
    max_shot_s: float = 60.0  # longer shots are split where least happens; 0: never
    cut_probability: float = 0.5  # least probability of a hard cut
    gradual_probability: float = 0.65  # and of a dissolve or wipe


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """What one decode of untrusted media may cost, in whichever stage: how, never what. Each is above 0."""

    max_pixels: int  # of a frame; more is refused from the header
    max_frames: int  # of one pass
    deadline_s: float  # of one call
    memory_gb: float  # address space of the decoding child

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_frames", "deadline_s", "memory_gb"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"analyze.{name} = {getattr(self, name)}", expected="more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyzeConfig:
    """The one-pass analysis (pipeline/stages/analyze.py)."""

    sources_per_task: int = no_key(0)  # at most so many files a task; 0: as many as take about its time
    strip_frames: int = 8
    strip_long_px: int = 256
    strip_quality: int = 92
    thumb_long_px: int = 160
    max_pixels: int = 100_000_000  # declared width × height; more is refused from the header
    max_frames: int = no_key(2_000_000)  # of one pass (18 hours at 30 a second); a source with more fails
    deadline_s: float = no_key(600.0)  # a source that takes longer fails
    memory_gb: float = no_key(4.0)  # address space of the decoding child
    segment_s: float = no_key(600.0)  # longer sources are decoded in pieces of this length at once; 0: never
    segment_min_mb: float = no_key(32.0)  # smaller files are not asked how long they are
    shots: ShotConfig = field(default_factory=ShotConfig)

    def __post_init__(self) -> None:
        positive(self, "analyze", "strip_frames", "strip_long_px", "thumb_long_px")
        if self.sources_per_task < 0:
            what = f"analyze.sources_per_task is {self.sources_per_task}"
            raise ConfigError(what, expected="0 (as fits), or a number of files")
        self.limits()

    def limits(self) -> DecodeLimits:
        """The limits of every stage that decodes this corpus's files, not of the analysis alone."""
        return DecodeLimits(
            max_pixels=self.max_pixels,
            max_frames=self.max_frames,
            deadline_s=self.deadline_s,
            memory_gb=self.memory_gb,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeConfig:
    """What is kept (pipeline/stages/judge.py). A rule applies only to what was measured."""

    preset: str = "standard"  # strict | standard | keep-all, or a TOML file like those in stages/presets
    rules: dict[str, Any] = field(default_factory=dict)  # changes: rules.signals.motion.min = 0.1
    dedup: bool = True  # one clip of each group of copies stays
    mirrored: bool = True  # a mirrored copy is a copy
    embedder: str = ""  # builtin: or clip:MODEL/TAG, for the two below; empty: none
    semantic_distance: float = 0.0  # clips whose vectors are this near (1 - cosine) are copies; 0: off
    aesthetic_head: str = ""  # safetensors of a linear head; its score is the column `aesthetic`
    decontaminate: str = ""  # reject what shows footage of this evaluation set: media, or a corpus

    def __post_init__(self) -> None:
        rules_of(self.rules)

    @staticmethod
    def short_names() -> Sequence[str]:
        """Keys that a config may have beside the fields."""
        return list(SHORT_RULES)

    @staticmethod
    def spelled_out(values: dict[str, Any]) -> dict[str, Any]:
        """The section with short names of rules put where they stand for."""
        rules: dict[str, Any] = {}
        for name in (n for n in SHORT_RULES if n in values):
            merge(rules, nested(SHORT_RULES[name], checked(values[name], float, f"judge.{name}")))
        kept = {k: v for k, v in values.items() if k not in SHORT_RULES}
        if rules:
            kept["rules"] = deepcopy(checked(kept.get("rules", {}), dict, "judge.rules"))
            merge(kept["rules"], rules)
        return kept


SHORT_RULES = {  # judge.min_s is short for judge.rules.duration_s.min, and so on
    "min_s": "duration_s.min",
    "max_s": "duration_s.max",
    "min_side_px": "short_side_px.min",
    "max_aspect": "aspect.max",
    "min_motion": "signals.motion.min",
    "min_sharpness": "signals.sharpness.min",
    "min_luma": "signals.luma.min",
    "min_contrast": "signals.contrast.min",
    "max_static_ratio": "signals.static_ratio.max",
    "max_black_ratio": "signals.black_ratio.max",
    "max_flicker": "signals.flicker.max",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionConfig:
    """Re-captioning (captioner/recaption.py)."""

    captioner: str = "builtin:"
    clips_per_task: int = 32
    max_tokens: int = 112

    def __post_init__(self) -> None:
        positive(self, "caption", "clips_per_task", "max_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """Features of captions (tokenizer_stage/text/)."""

    encoder: str = "builtin:"
    captions: str = ""  # a caption set of the corpus; "": that of caption.captioner
    max_tokens: int = 0  # of a text, specials included; 0: the encoder's own limit
    template: str = "{}"  # what the encoder reads: the caption stands in for {}
    dtype: str = "float32"  # of the encoder's arithmetic; features are stored as float16
    shard_mb: int = no_key(128)

    def __post_init__(self) -> None:
        positive(self, "text", "shard_mb")
        if self.max_tokens < 0:
            raise ConfigError(f"text.max_tokens = {self.max_tokens}", expected="at least 0")
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise ConfigError(f"text.dtype = {self.dtype!r}", expected="float32, bfloat16 or float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeConfig:
    """Latent shards (tokenizer_stage/). `area_px` bounds width × height. A clip's first frames are taken, at
    most `max_frames` and as many as the VAE takes: 1 + 4k of the built-in one."""

    vae: str = no_key("builtin:")  # a name; what it is, is the hash of its weights, which is in the key
    name: str = "default"  # of the folder below latents/
    fps: float = 8.0  # never above the clip's own; 0: the clip's own
    max_frames: int = 17
    area_px: int = 96 * 64
    patch: int = 2  # sides are whole patches of so many latents, as transformers take them
    dtype: str = "float32"  # that the VAE computes in, or bfloat16, float16
    device: str = no_key("")  # cpu or cuda; "": cuda where the stage is given a GPU. Its class is in the key
    batch: int = 1  # frames at once of a VAE of images; more is faster on a GPU and moves last bits
    tiles: bool = False  # larger frames in the VAE's own tiles: less memory, other values near their seams
    moments: bool = False  # the logarithm of each latent's variance too, for training that draws latents
    clips_per_task: int = no_key(64)  # at most: what a killed worker loses
    shard_mb: float = no_key(256.0)  # a tar is closed before it grows beyond this; a sample is never split
    split_by: str = no_key("")  # a manifest's column: sources that agree in it are never on both sides

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.name):
            raise ConfigError(
                f"encode.name is {self.name!r}",
                expected="the name of a folder: letters, digits, '.', '_' and '-', not '.' or '-' first",
            )
        for name, known in {"dtype": DTYPES, "device": ("", "cpu", "cuda")}.items():
            if (value := getattr(self, name)) not in known:
                raise ConfigError(f"encode.{name} is {value!r}", expected=" or ".join(map(repr, known)))
        if self.fps < 0:
            raise ConfigError(f"encode.fps is {self.fps}", expected="a rate, or 0 for the clip's own")
        positive(self, "encode", "max_frames", "area_px", "patch", "batch", "clips_per_task", "shard_mb")

    @classmethod
    def spelled_out(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values, none of which is of a key that is gone."""
        if "samples_per_shard" in values:
            raise ConfigError(
                "encode.samples_per_shard is gone: shards are sized by bytes",
                fix="encode.shard_mb=256, or nothing: that is the default",
            )
        return dict(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResources:
    """What one worker of a stage is given where that is not what the stage or its model asks for, and how
    many workers there are. None of it changes what comes out."""

    cpus: float | None = None
    gpus: float | None = (
        None  # a fraction is shared; unset: what the model asks for, none where there is none
    )
    memory_gb: float | None = None
    workers: int | None = None  # so many: min_workers and max_workers at once
    min_workers: int = 0  # asked of a cluster from the start, also where they do not fit yet
    max_workers: int = 0  # 0: as many as there is room for
    deadline_s: float = 21600.0  # a task that takes longer dies with its worker; 0: never

    def __post_init__(self) -> None:
        least = {"gpus": 0, "workers": 1, "min_workers": 0, "max_workers": 0, "deadline_s": 0}
        for name, lowest in least.items():
            if (value := getattr(self, name)) is not None and value < lowest:
                raise ConfigError(f"resources: {name} = {value}", expected=f"at least {lowest}")
        for name in ("cpus", "memory_gb"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ConfigError(f"resources: {name} = {value}", expected="more than 0")
        if self.gpus is not None and self.gpus > 1 and self.gpus != int(self.gpus):
            raise ConfigError(f"resources: gpus = {self.gpus}", expected="a fraction of one, or whole ones")
        if 0 < self.max_workers < self.min_workers:
            raise ConfigError(
                f"resources: min_workers = {self.min_workers}, max_workers = {self.max_workers}",
                expected="no more at least than at most",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcesConfig:
    """The resources of each stage that has workers (pipeline/engine/). A corpus does not remember them."""

    analyze: StageResources = field(default_factory=StageResources)
    embed: StageResources = field(default_factory=StageResources)
    caption: StageResources = field(default_factory=StageResources)
    encode: StageResources = field(default_factory=StageResources)
    text: StageResources = field(default_factory=StageResources)


@dataclass(frozen=True, slots=True, kw_only=True)
class PricesConfig:
    """What is paid for what a stage holds, for `framemill cost`; 0: not known. A corpus does not remember
    them."""

    cpu_hour: float = 0.0
    gpu_hour: float = 0.0
    memory_gb_hour: float = 0.0
    storage_gb_month: float = 0.0
    currency: str = "EUR"

    def __post_init__(self) -> None:
        for name in ("cpu_hour", "gpu_hour", "memory_gb_hour", "storage_gb_month"):
            if getattr(self, name) < 0:
                raise ConfigError(f"prices.{name} = {getattr(self, name)}", expected="at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All sections; the resolved one is saved as corpus.toml, but for `resources` and `prices`."""

    analyze: AnalyzeConfig = field(default_factory=AnalyzeConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    caption: CaptionConfig = field(default_factory=CaptionConfig)
    encode: EncodeConfig = field(default_factory=EncodeConfig)
    text: TextConfig = field(default_factory=TextConfig)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig, metadata=OF_THE_RUN)
    prices: PricesConfig = field(default_factory=PricesConfig, metadata=OF_THE_RUN)


def load_config(
    path: str | None = None,
    overrides: Sequence[str] = (),
    base: Config | None = None,
    given: Mapping[str, Any] | None = None,
) -> Config:
    """`base` (the defaults), then the TOML file, then `section.key=value` overrides, then flags."""
    return load(base or Config(), path, overrides, given)
