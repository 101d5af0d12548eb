"""What the `.txt` (the caption) and `.json` (an object) files in a tar say of the media beside them.

In: the members of a tar. Out: facts of each media member, and notes. Opens no media.

A member's own sidecar bears its name without its last suffix: `trip.to.rome.txt` goes with
`trip.to.rome.png`. WebDataset's looser rule, the name up to its first dot, holds only where it cannot give
one picture another's caption: `001.json` goes with `001.v2.jpg` where that is the only one of `001`.
"""

import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import IO, Any

from pipeline.sources.lists import parse_object
from pipeline.sources.manifests import facts_of
from pipeline.tars import Member
from pipeline.uris import read_range

SIDECARS = (".txt", ".json")  # the caption of a `.txt` counts before that of a `.json`
MAX_SIDECAR_BYTES = 1 << 20


def sidecar_facts(
    tar: str, media: Sequence[Member], sidecars: Sequence[Member]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Name of a media member → its facts, and notes."""
    of_name = {(_stem(member.name), _suffix(member.name)): member for member in sidecars}
    pairs, used = _pairs([member.name for member in media], of_name)
    notes: list[str] = []
    left = sorted(member.name for member in of_name.values() if member.name not in used)
    if left:
        named = ", ".join(left[:3]) + (", …" if len(left) > 3 else "")
        notes.append(f"{tar}: {len(left)} captions or facts go with no media of their name: {named}")
    members = sorted(used.values(), key=lambda member: member.offset)
    texts, wrong = read_range(tar, lambda stream: _texts(stream, members)) if members else ({}, [])
    notes += [f"{tar}#{line}" for line in wrong]
    facts: dict[str, dict[str, Any]] = {}
    for name, own in pairs.items():
        facts[name] = {}
        for sidecar in own:
            facts[name] = texts.get(sidecar, {}) | facts[name]
    return facts, notes


def _pairs(
    media: Sequence[str], sidecars: Mapping[tuple[str, str], Member]
) -> tuple[dict[str, list[str]], dict[str, Member]]:
    """(media name → names of its sidecars, of which the first counts; the sidecars that go with any)."""
    stems = {_stem(name) for name in media}
    of_key = Counter(_key(name) for name in media)
    pairs: dict[str, list[str]] = {}
    used: dict[str, Member] = {}
    for name in media:
        stem, key = _stem(name), _key(name)
        is_alone = key not in stems and of_key[key] == 1
        for suffix in SIDECARS:
            sidecar = sidecars.get((stem, suffix)) or (sidecars.get((key, suffix)) if is_alone else None)
            if sidecar is not None:
                pairs.setdefault(name, []).append(sidecar.name)
                used[sidecar.name] = sidecar
    return pairs, used


def _texts(stream: IO[bytes], sidecars: Sequence[Member]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Name → what each sidecar says, and what is wrong with those that say nothing."""
    texts: dict[str, dict[str, Any]] = {}
    wrong: list[str] = []
    for sidecar in sidecars:
        try:
            texts[sidecar.name] = _facts(stream, sidecar)
        except ValueError as error:  # UnicodeDecodeError is one
            wrong.append(f"{sidecar.name}: {error}")
    return texts, wrong


def _facts(stream: IO[bytes], sidecar: Member) -> dict[str, Any]:
    """What a sidecar says; ValueError with what is wrong with it."""
    if sidecar.nbytes > MAX_SIDECAR_BYTES:
        raise ValueError(f"larger than {MAX_SIDECAR_BYTES} bytes")
    stream.seek(sidecar.offset)
    text = stream.read(sidecar.nbytes).decode("utf-8-sig")
    if _suffix(sidecar.name) == ".txt":
        return facts_of({"caption": text.strip()})
    record, problem = parse_object(text)
    if problem:
        raise ValueError(problem)
    return facts_of(record)


def _stem(name: str) -> str:
    folder, file = posixpath.split(name)
    return posixpath.join(folder, PurePosixPath(file).stem)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _key(name: str) -> str:
    """WebDataset's: the path up to the first dot of the file name."""
    folder, file = posixpath.split(name)
    return posixpath.join(folder, file.partition(".")[0])
