"""High dynamic range and wide gamuts brought to what a picture of standard range shows. Pure.

In: pixels as coded, 16 bits a channel, full range. Out: uint8 RGB as for BT.709 primaries and a BT.1886
display. Never: a codec, a matrix of luma and chroma other than ICtCp's.

The rule, the same for every file, because what files state of their mastering is often wrong:
1. PQ (SMPTE ST 2084) → cd/m²; HLG (ARIB STD-B67) → scene light → cd/m² by the OOTF of BT.2100 for a display
   of 1000 cd/m², gamma 1.2. What is brighter than 1000 cd/m² counts as 1000.
2. The EETF of BT.2390 (section 5.4.1; black stays 0) from 1000 cd/m² to 203, the reference white of BT.2408,
   on the largest of R, G, B; all three are scaled by what it loses, so hues stay.
3. Linear light from the stated primaries (BT.2020 where none are) to BT.709; what lies outside is clipped.
4. The inverse of BT.1886's EOTF, gamma 2.4.
Wide gamuts of standard range (BT.2020, DCI-P3, Display P3) are made linear by gamma 2.4 and take steps 3, 4.
"""

from functools import cache

import numpy as np

HDR = {16: "pq", 18: "hlg"}  # transfer characteristics (ITU-T H.273): SMPTE ST 2084, ARIB STD-B67
WHITE_NITS = 203.0  # cd/m² of reference white (ITU-R BT.2408-7)
PEAK_NITS = 1000.0  # cd/m² of the display that HDR is taken to be made for
PQ_NITS = 10_000.0  # cd/m² at the top of PQ
HLG_GAMMA = 1.2  # of the system, at PEAK_NITS (BT.2100)
DISPLAY_GAMMA = 2.4  # BT.1886
CODES = 1 << 16
ROOTS = 1 << 14  # steps of a table over square roots: finer than half a step of 8 bits everywhere

D65 = (0.3127, 0.3290)
CHROMATICITIES = {  # H.273 ColourPrimaries → x, y of R, G, B and of white
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), D65),
    4: ((0.670, 0.330), (0.210, 0.710), (0.140, 0.080), (0.310, 0.316)),
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060), D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),  # its white, of the cinema, is shown as white
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),
}
BT709, BT2020 = 1, 9
WIDE = (BT2020, 11, 12)  # primaries whose colours are seen to differ; those of old television hardly do
# BT.2100, table 7: BT.2020 → LMS, and L'M'S' → ICtCp, in 4096ths
LMS = np.array([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]]) / 4096
ICTCP = {
    "pq": np.array([[2048, 2048, 0], [6610, -13613, 7003], [17933, -17390, -543]]) / 4096,
    "hlg": np.array([[2048, 2048, 0], [3625, -7465, 3840], [9500, -9212, -288]]) / 4096,
}


def to_standard(coded: np.ndarray, transfer: str, primaries: int, *, lms: bool = False) -> np.ndarray:
    """uint8 [H, W, 3] of uint16 [H, W, 3] R'G'B' as coded (or, of ICtCp, L'M'S'); `transfer` is pq, hlg or
    sdr, `primaries` those of H.273 (unknown ones are taken as BT.2020 of HDR, else as BT.709)."""
    usual = BT709 if transfer == "sdr" else BT2020
    light = _linear_table(transfer)[coded]  # float32 [H, W, 3]
    if lms:
        light = np.maximum(light @ np.linalg.inv(LMS).T.astype(np.float32), 0)
    if transfer == "hlg":
        light = _hlg_display(light)
    if transfer != "sdr":
        peak = np.maximum(light.max(axis=-1, keepdims=True), np.float32(1e-6))  # [H, W, 1]
        shown = _shown_table()[_roots(np.minimum(peak / np.float32(PEAK_NITS), 1))]
        light = light / peak * shown  # of a grey just `shown`, so that brighter is never darker
    if (primaries if primaries in CHROMATICITIES else usual) != BT709:
        light = light @ _to_bt709(primaries if primaries in CHROMATICITIES else usual).T
    return _display_table()[_roots(np.clip(light, 0, 1))]


@cache
def grey_table(transfer: str) -> np.ndarray:
    """What a grey of each of the 65536 codes becomes, uint8: the luma of HDR where the whole picture would
    cost too much. Exact for greys, near for colours."""
    codes = np.arange(CODES, dtype=np.uint16)
    grey = np.repeat(codes[:, None], 3, axis=1)[None]  # [1, 65536, 3]
    return to_standard(grey, transfer, BT709)[0, :, 1]


def luma_weights(primaries: int) -> tuple[float, float]:
    """(Kr, Kb) of the luma that follows from primaries (H.273, equations 39 to 44)."""
    weights = _to_xyz(primaries)[1]
    return float(weights[0]), float(weights[2])


def _roots(share: np.ndarray) -> np.ndarray:
    """The place of shares (0 to 1) in a table over their square roots, which are the same on any machine."""
    return np.rint(np.sqrt(share) * np.float32(ROOTS - 1)).astype(np.int32)


@cache
def _linear_table(transfer: str) -> np.ndarray:
    """Light of each code, float32 [65536]: cd/m² of PQ, scene light 0 to 1 of HLG, light 0 to 1 else."""
    code = np.arange(CODES) / (CODES - 1)
    if transfer == "pq":
        return (PQ_NITS * _pq_light(code)).astype(np.float32)
    if transfer == "hlg":  # BT.2100, table 5
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12).astype(np.float32)
    return (code**DISPLAY_GAMMA).astype(np.float32)


@cache
def _shown_table() -> np.ndarray:
    """What the EETF makes of each peak (over the square root of its share of PEAK_NITS), as a share of
    WHITE_NITS: float32 [ROOTS]."""
    return (_eetf_nits(PEAK_NITS * (np.arange(ROOTS) / (ROOTS - 1)) ** 2) / WHITE_NITS).astype(np.float32)


@cache
def _display_table() -> np.ndarray:
    """uint8 [ROOTS]: the code of each share of white, over its square root."""
    share = (np.arange(ROOTS) / (ROOTS - 1)) ** 2
    return np.rint(255 * share ** (1 / DISPLAY_GAMMA)).astype(np.uint8)


def _eetf_nits(nits: np.ndarray) -> np.ndarray:
    """BT.2390-10, 5.4.1, from 0 … PEAK_NITS to 0 … WHITE_NITS: a Hermite spline above a knee, in PQ."""
    peak = _pq_code(np.array(PEAK_NITS))
    coded = _pq_code(nits) / peak
    top = float(_pq_code(np.array(WHITE_NITS)) / peak)
    knee = 1.5 * top - 0.5
    t = np.clip((coded - knee) / (1 - knee), 0, 1)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * top
    )
    return PQ_NITS * _pq_light(np.where(coded < knee, coded, spline) * peak)


M1, M2, C1, C2, C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128  # SMPTE ST 2084


def _pq_light(code: np.ndarray) -> np.ndarray:
    root = code ** (1 / M2)
    return (np.maximum(root - C1, 0) / (C2 - C3 * root)) ** (1 / M1)


def _pq_code(nits: np.ndarray) -> np.ndarray:
    power = (nits / PQ_NITS) ** M1
    return ((C1 + C2 * power) / (1 + C3 * power)) ** M2


def _hlg_display(scene: np.ndarray) -> np.ndarray:
    """cd/m² of scene light [H, W, 3] (0 to 1) on a display of PEAK_NITS: the OOTF of BT.2100, table 5."""
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593], np.float32)  # [H, W]
    gain = _ootf_table()[_roots(np.minimum(luminance, 1))]
    return scene * gain[..., None]


@cache
def _ootf_table() -> np.ndarray:
    luminance = (np.arange(ROOTS) / (ROOTS - 1)) ** 2
    return (PEAK_NITS * luminance ** (HLG_GAMMA - 1)).astype(np.float32)


@cache
def _to_bt709(primaries: int) -> np.ndarray:
    """Linear light of these primaries → of BT.709, white to white."""
    return (np.linalg.inv(_to_xyz(BT709)) @ _to_xyz(primaries)).astype(np.float32)


def _to_xyz(primaries: int) -> np.ndarray:
    """RGB → XYZ with Y = 1 at white, [3, 3] (SMPTE RP 177)."""
    columns = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in CHROMATICITIES[primaries]]).T  # [3, 4]
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])
