"""cluster.yaml against Ray's own schema, and for what the schema lets through. All offline."""

import copy
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parent.parent
FILE = ROOT / "cluster.yaml"
TOKEN = "~/.ray/auth_token"


@pytest.fixture
def written() -> dict[str, Any]:
    """Give the file as it is written."""
    config: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return config


@pytest.fixture
def filled(written: dict[str, Any]) -> dict[str, Any]:
    """Give the file with Ray's defaults filled in; this asks no cloud."""
    config: dict[str, Any] = prepare_config(copy.deepcopy(written))
    return config


def _ray_starts(config: dict[str, Any]) -> list[str]:
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    return [command for command in commands if "ray start" in command]


def test_ray_accepts_the_file(filled: dict[str, Any]) -> None:
    validate_config(filled)


def test_ray_refuses_a_key_that_it_does_not_know(filled: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="max_worker_nodes"):
        validate_config({**filled, "max_worker_nodes": 3})


def test_the_head_is_on_demand_and_runs_no_trials(filled: dict[str, Any]) -> None:
    head = filled["available_node_types"][filled["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert head["max_workers"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]


def test_workers_are_spot_machines_with_gpus_that_scale_from_zero(filled: dict[str, Any]) -> None:
    types = dict(filled["available_node_types"])
    del types[filled["head_node_type"]]
    assert types
    for name, node in types.items():
        assert node["min_workers"] == 0, name
        assert node["resources"]["GPU"] >= 1, name
        assert node["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}, name


def test_no_node_type_may_have_more_workers_than_the_cluster(filled: dict[str, Any]) -> None:
    for name, node in filled["available_node_types"].items():
        assert node["max_workers"] <= filled["max_workers"], name


def test_no_key_is_one_that_the_schema_ignores(written: dict[str, Any]) -> None:
    assert "min_workers" not in written
    assert set(written["provider"]) == {
        "type", "region", "availability_zone", "cache_stopped_nodes",
    }  # fmt: skip


def test_every_ray_asks_for_the_token(filled: dict[str, Any]) -> None:
    starts = _ray_starts(filled)
    assert len(starts) == 2
    for command in starts:
        assert "RAY_AUTH_MODE=token ray start" in command
    assert "--env RAY_AUTH_MODE=token" in filled["docker"]["run_options"]
    assert filled["file_mounts"]["/home/ray/.ray/auth_token"] == TOKEN


def test_the_dashboard_answers_on_loopback_alone(filled: dict[str, Any]) -> None:
    hosts = [
        word for command in _ray_starts(filled) for word in shlex.split(command)
        if word.startswith("--dashboard-host")
    ]  # fmt: skip
    assert hosts == ["--dashboard-host=127.0.0.1"]


def test_ray_makes_no_security_group_and_no_role(filled: dict[str, Any]) -> None:
    for name, node in filled["available_node_types"].items():
        assert node["node_config"]["SecurityGroupIds"], name
    head = filled["available_node_types"][filled["head_node_type"]]
    assert head["node_config"]["IamInstanceProfile"]
    assert "0.0.0.0" not in FILE.read_text()


def test_what_is_copied_to_the_nodes_is_there(written: dict[str, Any]) -> None:
    for local in written["file_mounts"].values():
        assert local == TOKEN or (ROOT / local).exists(), local


def test_the_image_has_the_pinned_ray() -> None:
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
    )
    image = yaml.safe_load(FILE.read_text())["docker"]["image"]
    assert image.startswith(f"rayproject/ray:{pins['ray']}-py311")
