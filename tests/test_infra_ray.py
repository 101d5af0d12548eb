"""The launcher's cluster file, against the schema that the installed Ray validates it with."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def cluster() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "infra" / "ray" / "cluster.yaml").read_text()))


def check(config: dict[str, Any]) -> None:
    ray = importlib.util.find_spec("ray")  # not imported: that takes seconds
    assert ray
    assert ray.submodule_search_locations
    schema = Path(ray.submodule_search_locations[0]) / "autoscaler" / "ray-schema.json"
    jsonschema.validate(config, json.loads(schema.read_text()))


def test_ray_takes_it() -> None:
    check(cluster())
    with pytest.raises(jsonschema.ValidationError, match="spot_workers"):
        check({**cluster(), "spot_workers": 3})


def test_the_head_runs_no_task_and_workers_are_spot_machines_that_come_from_none() -> None:
    config = cluster()
    types = dict(config["available_node_types"])
    head = types.pop(config["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert "--num-cpus=0" in " ".join(config["head_start_ray_commands"])
    assert sum(kind["max_workers"] for kind in types.values()) == config["max_workers"]
    for kind in types.values():
        assert kind["min_workers"] == 0
        assert kind["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert [name for name, kind in types.items() if kind["resources"].get("GPU")] == ["gpu_spot"]


def test_every_node_asks_for_the_token_that_is_copied_to_it() -> None:
    config = cluster()
    options = " ".join(config["docker"]["run_options"])
    (path,) = re.findall(r"RAY_AUTH_TOKEN_PATH=(\S+)", options)
    assert "RAY_AUTH_MODE=token" in options
    assert config["file_mounts"] == {path: "~/.ray/auth_token"}
    assert "--dashboard-host=127.0.0.1" in " ".join(config["head_start_ray_commands"])
