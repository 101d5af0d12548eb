"""Makes the files of the zoo's cases, in a process of its own: `python -m pipeline.zoo.make FOLDER SEED`.

In: on stdin the names of the cases, as JSON. Out: each case's files in FOLDER/<its name>; on stdout a JSON
object a case: its name and what is in the way of making it here ("" = nothing). Never: torch beside PyAV.
"""

import json
import sys
from pathlib import Path

import av

from pipeline.zoo.cases import all_cases
from pipeline.zoo.writer import can_encode


def make(folder: Path, seed: int, names: list[str]) -> None:
    """Writes the files of the named cases, and a line a case."""
    av.logging.set_level(av.logging.PANIC)
    by_name = {case.name: case for case in all_cases(seed)}
    for name in names:
        case, place = by_name[name], folder / name
        missing = [codec for codec in case.needs if not can_encode(codec)]
        problem = f"no encoder {', '.join(missing)} in this FFmpeg" if missing else ""
        if not missing:
            place.mkdir(parents=True, exist_ok=True)
            try:
                case.make(place)
            except Exception as error:  # a case that cannot be made is named; the others go on
                problem = f"cannot be made: {type(error).__name__}: {error}"
        print(json.dumps({"name": name, "problem": problem, "missing": bool(missing)}), flush=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]), json.load(sys.stdin))
