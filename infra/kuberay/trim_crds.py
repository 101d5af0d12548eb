"""Makes schema.json here from KubeRay's CRDs: what a RayCluster and a RayJob may say, without the prose.

    python infra/kuberay/trim_crds.py CRDS      (helm-chart/kuberay-operator/crds of a checkout of KubeRay)

In: ray.io_rayclusters.yaml and ray.io_rayjobs.yaml. Out: one JSON schema a kind, in which an object has no
other fields than those that it names, as a strict API server holds it. Objects that occur more than once (pod
templates) are written once. Never: a default, a description, a version but v1.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

KEPT = (
    "type", "properties", "required", "items", "enum", "pattern", "minimum", "maximum",
    "minItems", "maxItems", "maxLength", "minLength", "additionalProperties", "anyOf", "format",
)  # fmt: skip
SHARED_BYTES = 300  # a smaller object is written where it stands
NOTE = (
    "Made by infra/kuberay/trim_crds.py from the CRDs of KubeRay (github.com/ray-project/kuberay, "
    "Apache License 2.0), fields and rules only."
)


def trimmed(node: Any) -> Any:
    """The part of an OpenAPI schema that says what is valid."""
    if isinstance(node, list):
        return [trimmed(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept: dict[str, Any] = {}
    for name in KEPT:
        if name == "properties" and name in node:
            kept[name] = {field: trimmed(schema) for field, schema in node[name].items()}
        elif name in node:
            kept[name] = trimmed(node[name])
    if node.get("x-kubernetes-int-or-string"):
        kept.pop("anyOf", None)
        kept["type"] = ["integer", "string"]
    if "properties" in kept and not node.get("x-kubernetes-preserve-unknown-fields"):
        kept.setdefault("additionalProperties", False)
    return kept


def mapped(schema: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """A schema with each schema directly in it changed."""
    new = dict(schema)
    if "properties" in schema:
        new["properties"] = {name: change(field) for name, field in schema["properties"].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            new[name] = change(schema[name])
    return new


def shared(schemas: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The schemas with every large one that occurs twice moved to $defs."""
    counts: Counter[str] = Counter()
    names: dict[str, str] = {}
    defs: dict[str, Any] = {}

    def count(schema: dict[str, Any]) -> dict[str, Any]:
        counts[json.dumps(schema, sort_keys=True)] += 1
        return mapped(schema, count)

    def moved(schema: dict[str, Any]) -> dict[str, Any]:
        text = json.dumps(schema, sort_keys=True)
        if counts[text] == 1 or len(text) < SHARED_BYTES:
            return mapped(schema, moved)
        if text not in names:
            names[text] = f"d{len(names)}"
            defs[names[text]] = mapped(schema, moved)
        return {"$ref": f"#/$defs/{names[text]}"}

    for schema in schemas.values():
        count(schema)
    kinds = {kind: mapped(schema, moved) for kind, schema in schemas.items()}
    return {"$comment": NOTE, "kinds": kinds, "$defs": defs}


def main(crds: Path) -> None:
    schemas = {}
    for name in ("ray.io_rayclusters.yaml", "ray.io_rayjobs.yaml"):
        crd = yaml.safe_load((crds / name).read_text())
        (version,) = [v for v in crd["spec"]["versions"] if v["name"] == "v1"]
        schema = trimmed(version["schema"]["openAPIV3Schema"])
        schema["properties"].pop("status")
        schema["properties"]["metadata"] = {"type": "object"}
        schemas[crd["spec"]["names"]["kind"]] = schema
    text = json.dumps(shared(schemas), separators=(",", ":"), sort_keys=True)
    Path(__file__).with_name("schema.json").write_text(text + "\n")
    print(f"{len(text) / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
