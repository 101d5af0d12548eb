"""The KubeRay manifests: what kustomize makes of them, against the fields and rules of KubeRay's CRDs."""

import copy
import json
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipeline.config import load_config

KUBERAY = Path(__file__).resolve().parents[1] / "infra" / "kuberay"
OVERLAYS = ("cpu", "gpu")
Manifest = dict[str, Any]


def manifests(folder: Path) -> list[Manifest]:
    """What the kustomization of a folder lists, after its JSON patches and images. No other field of
    kustomize is used there but namespaces, labels and files of settings."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(kustomization) <= {
        "apiVersion", "kind", "namespace", "labels", "resources", "images", "patches", "configMapGenerator",
        "generatorOptions",
    }  # fmt: skip
    rows: list[Manifest] = []
    for name in kustomization["resources"]:
        path = folder / name
        rows += manifests(path) if path.is_dir() else yaml.safe_load_all(path.read_text())
    for patch in kustomization.get("patches", ()):
        kind, name = patch["target"]["kind"], patch["target"]["name"]
        (target,) = [row for row in rows if (row["kind"], row["metadata"]["name"]) == (kind, name)]
        for step in yaml.safe_load((folder / patch["path"]).read_text()):
            apply(target, step)
    for image in kustomization.get("images", ()):
        for container in containers(rows):
            if container["image"] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    return rows


def apply(target: Manifest, step: dict[str, Any]) -> None:
    """One step of a JSON patch (RFC 6902), of the two kinds that are used."""
    *way, last = step["path"].strip("/").split("/")
    node: Any = target
    for part in way:
        node = node[int(part)] if isinstance(node, list) else node[part]
    assert (step["op"], last) == ("add", "-")
    node.append(copy.deepcopy(step["value"]))


def containers(node: Any) -> Iterator[dict[str, Any]]:
    """Every container of a manifest or of several."""
    if isinstance(node, list):
        for item in node:
            yield from containers(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ("containers", "initContainers"):
                yield from value
            else:
                yield from containers(value)


def of_kind(rows: list[Manifest], kind: str) -> Manifest:
    (row,) = [row for row in rows if row["kind"] == kind]
    return row


def groups(rows: list[Manifest]) -> list[dict[str, Any]]:
    return list(of_kind(rows, "RayCluster")["spec"]["workerGroupSpecs"])


def check(manifest: Manifest) -> None:
    schema = json.loads((KUBERAY / "schema.json").read_text())
    jsonschema.validate(manifest, {**schema["kinds"][manifest["kind"]], "$defs": schema["$defs"]})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_clusters_and_jobs_say_only_what_the_crds_know(overlay: str) -> None:
    rows = manifests(KUBERAY / "overlays" / overlay)
    for kind in ("RayCluster", "RayJob"):
        check(of_kind(rows, kind))


def test_the_schema_refuses_what_kuberay_does_not_know() -> None:
    wrong = of_kind(manifests(KUBERAY / "base"), "RayCluster")
    wrong["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imaeg"] = "x"
    with pytest.raises(jsonschema.ValidationError, match="imaeg"):
        check(wrong)
    wrong = of_kind(manifests(KUBERAY / "base"), "RayCluster")
    wrong["spec"]["authOptions"]["mode"] = "password"
    with pytest.raises(jsonschema.ValidationError, match="password"):
        check(wrong)


def test_the_schema_is_small_and_says_where_it_is_from() -> None:
    text = (KUBERAY / "schema.json").read_text()
    assert len(text) < 200_000
    assert "Apache License 2.0" in json.loads(text)["$comment"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_asks_for_what_it_may_use_and_runs_as_nobody(overlay: str) -> None:
    rows = manifests(KUBERAY / "overlays" / overlay)
    found = list(containers(rows))
    assert len(found) == {"cpu": 3, "gpu": 4}[overlay]  # head, submitter, and the groups of workers
    for container in found:
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert (
            container["image"] == {"cpu": "REGISTRY/framemill:cpu", "gpu": "REGISTRY/framemill:cuda"}[overlay]
        )
    job = of_kind(rows, "RayJob")["spec"]["submitterPodTemplate"]
    head = of_kind(rows, "RayCluster")["spec"]["headGroupSpec"]["template"]
    for template in (job, head, *(group["template"] for group in groups(rows))):
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True


def test_the_head_has_no_tasks_stays_and_workers_come_from_none() -> None:
    rows = manifests(KUBERAY / "overlays" / "gpu")
    cluster = of_kind(rows, "RayCluster")
    assert cluster["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["spec"]["enableInTreeAutoscaling"] is True
    for group in groups(rows):
        assert (group["replicas"], group["minReplicas"]) == (0, 0) < (group["maxReplicas"],)
        assert any("spot" in toleration["key"] for toleration in group["template"]["spec"]["tolerations"])
    kept = of_kind(rows, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    assert kept == {"ray.io/cluster": cluster["metadata"]["name"], "ray.io/node-type": "head"}
    job = of_kind(rows, "RayJob")["spec"]
    assert job["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}


def test_only_the_gpu_group_has_gpus() -> None:
    gpus = {
        group["groupName"]: group["template"]["spec"]["containers"][0]["resources"]["limits"].get(
            "nvidia.com/gpu"
        )
        for group in groups(manifests(KUBERAY / "overlays" / "gpu"))
    }
    assert gpus == {"cpu-spot": None, "gpu-spot": "1"}
    assert len(groups(manifests(KUBERAY / "overlays" / "cpu"))) == 1


def test_secrets_are_named_never_written() -> None:
    for path in KUBERAY.rglob("*.yaml"):
        for row in yaml.safe_load_all(path.read_text()):
            assert not (isinstance(row, dict) and row.get("kind") == "Secret"), path
    for overlay in OVERLAYS:
        rows = manifests(KUBERAY / "overlays" / overlay)
        assert of_kind(rows, "RayCluster")["spec"]["authOptions"] == {
            "mode": "token",
            "secretName": "framemill-ray-token",
        }
        accounts = {row["metadata"]["name"] for row in rows if row["kind"] == "ServiceAccount"}
        assert {group["template"]["spec"]["serviceAccountName"] for group in groups(rows)} == accounts
        for container in containers(rows):
            assert not container.get("env")


def test_settings_are_valid_and_the_entrypoint_reads_them() -> None:
    for path in KUBERAY.rglob("framemill.toml"):
        load_config(str(path))
    base = manifests(KUBERAY / "base")
    (mount,) = [
        mount
        for mount in next(containers(of_kind(base, "RayCluster")))["volumeMounts"]
        if mount["name"] == "config"
    ]
    assert f"--config {mount['mountPath']}/framemill.toml" in of_kind(base, "RayJob")["spec"]["entrypoint"]


def test_the_cluster_runs_the_ray_of_the_image() -> None:
    assert of_kind(manifests(KUBERAY / "base"), "RayCluster")["spec"]["rayVersion"] == version("ray")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_agrees(overlay: str) -> None:
    """Ours against the real one, where it is installed."""
    commands = (("kustomize", "build"), ("kubectl", "kustomize"))
    command = next((command for command in commands if shutil.which(command[0])), None)
    if command is None:
        pytest.skip("neither kustomize nor kubectl")
    folder = KUBERAY / "overlays" / overlay
    made = subprocess.run([*command, folder], capture_output=True, text=True, check=True).stdout
    theirs = {row["kind"]: row for row in yaml.safe_load_all(made)}
    settings = theirs.pop("ConfigMap")["data"]["framemill.toml"]
    assert (
        settings == (folder if overlay == "gpu" else KUBERAY / "base").joinpath("framemill.toml").read_text()
    )
    ours = {row["kind"]: row for row in manifests(folder)}
    assert {kind: row.get("spec") for kind, row in theirs.items()} == {
        kind: row.get("spec") for kind, row in ours.items()
    }
    for row in theirs.values():
        assert row["metadata"]["namespace"] == "framemill"
