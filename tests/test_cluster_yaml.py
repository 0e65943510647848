"""cluster.yaml against Ray's own schema, and for what the schema lets through; the image that its
nodes run, and the Kubernetes job. All offline."""

import copy
import inspect
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from orchestrator.cli import launch
from orchestrator.sweep.resources import MOST_ON_A_GPU

ROOT = Path(__file__).parent.parent
FILE = ROOT / "cluster.yaml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
KUBERNETES = ROOT / "deploy" / "kuberay-rayjob.yaml"
TOKEN = "~/.ray/auth_token"
MACHINES = {"m5.large": (2, 0), "g5.2xlarge": (8, 1), "g5.12xlarge": (48, 4)}
"""vCPUs and GPUs of the machines, as AWS lists them."""


@pytest.fixture
def written() -> dict[str, Any]:
    """Return the file as it is written."""
    config: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return config


@pytest.fixture
def filled(written: dict[str, Any]) -> dict[str, Any]:
    """Return the file with Ray's defaults filled in; this asks no cloud."""
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


def _workers(config: dict[str, Any]) -> dict[str, Any]:
    types = dict(config["available_node_types"])
    del types[config["head_node_type"]]
    return types


def test_workers_are_spot_machines_with_gpus_that_scale_from_zero(filled: dict[str, Any]) -> None:
    types = _workers(filled)
    assert sorted(node["resources"]["GPU"] for node in types.values()) == [1, 4]
    for name, node in types.items():
        assert node["min_workers"] == 0 < node["max_workers"], name
        assert node["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}, name
    assert 0 < filled["idle_timeout_minutes"] <= 15
    assert len(filled["provider"]["availability_zone"].split(",")) >= 2


def test_a_node_promises_what_its_machine_has(filled: dict[str, Any]) -> None:
    for name, node in filled["available_node_types"].items():
        cpus, gpus = MACHINES[node["node_config"]["InstanceType"]]
        assert node["resources"].get("GPU", 0) == gpus, name
        assert node["resources"]["CPU"] == (0 if name == filled["head_node_type"] else cpus), name
        assert set(node["resources"]) <= {"CPU", "GPU"}, name


def test_a_gpu_has_cpus_for_as_many_trials_as_may_share_it(filled: dict[str, Any]) -> None:
    for name, node in _workers(filled).items():
        assert node["resources"]["CPU"] >= node["resources"]["GPU"] * MOST_ON_A_GPU, name


def test_the_role_that_starts_machines_is_the_head_s_alone(filled: dict[str, Any]) -> None:
    def role(node: dict[str, Any]) -> str:
        name: str = node["node_config"]["IamInstanceProfile"]["Name"]
        return name

    head = role(filled["available_node_types"][filled["head_node_type"]])
    assert head not in {role(node) for node in _workers(filled).values()}


def test_credentials_and_disks_of_every_node_are_guarded(filled: dict[str, Any]) -> None:
    for name, node in filled["available_node_types"].items():
        assert node["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}, name
        for disk in node["node_config"]["BlockDeviceMappings"]:
            assert disk["Ebs"]["Encrypted"] is True, name


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
    assert filled["file_mounts"] == {"/home/ray/.ray/auth_token": TOKEN}
    assert "chmod 600 /home/ray/.ray/auth_token" in filled["setup_commands"]


def test_a_trial_without_a_gpu_sees_none(filled: dict[str, Any]) -> None:
    assert "--env RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1" in filled["docker"]["run_options"]


def test_a_node_installs_nothing_when_it_comes(filled: dict[str, Any]) -> None:
    commands = [*filled["setup_commands"], *filled["worker_setup_commands"]]
    assert not [command for command in commands if "install" in command]


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


def _pinned_ray() -> str:
    lines = (ROOT / "constraints.txt").read_text().split()
    return dict(line.split("==") for line in lines if "==" in line)["ray"]


def _instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, each with its arguments in one line."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    split = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(word, rest) for word, rest in split]


def _arguments(word: str) -> list[str]:
    return [rest for found, rest in _instructions() if found == word]


def test_the_image_has_the_pinned_ray() -> None:
    assert _arguments("FROM") == [f"rayproject/ray:{_pinned_ray()}-py311-gpu"]


def test_the_image_is_built_of_pinned_packages_and_our_code_alone() -> None:
    words = {word for word, _ in _instructions()}
    assert words == {"FROM", "USER", "WORKDIR", "COPY", "RUN", "ENV"}  # no ADD, no ARG
    sources = [word for line in _arguments("COPY") for word in line.split()[:-1]]
    copied = {word for word in sources if not word.startswith("--chown=")}
    packages = {"orchestrator", "trainables", "search_spaces", "results"}
    assert copied == {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"} | packages
    assert all((ROOT / name).exists() for name in copied)
    installs = [line for line in _arguments("RUN") if "pip install" in line]
    assert installs and all("-c constraints.txt" in line for line in installs)
    assert not [line for line in _arguments("RUN") if "curl" in line or "wget" in line]


def test_only_what_the_image_copies_is_sent_to_its_build() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    assert lines[0] == "*"
    sources = {word for line in _arguments("COPY") for word in line.split()[1:-1]}
    assert {line[1:] for line in lines if line.startswith("!")} == sources


def test_the_image_runs_as_no_root_and_asks_for_the_token() -> None:
    assert _arguments("USER") == ["ray"]
    assert all("sudo" not in line for line in _arguments("RUN"))
    settings = [word for line in _arguments("ENV") for word in line.split()]
    assert "RAY_AUTH_MODE=token" in settings
    assert not [word for word in settings if "TOKEN=" in word or "KEY" in word or "SECRET" in word]


def test_every_node_runs_that_image(filled: dict[str, Any]) -> None:
    image = filled["docker"]["image"]
    assert image.startswith("REPLACE.") and image.endswith("/defense-sweep:0.1.0")
    assert not [
        key for node in filled["available_node_types"].values() for key in node.get("docker", {})
    ]
    registry = image.partition("/")[0]
    assert any(registry in command for command in filled["initialization_commands"])


@pytest.fixture
def job() -> dict[str, Any]:
    """Return the Kubernetes job."""
    found: dict[str, Any] = yaml.safe_load(KUBERNETES.read_text())
    return found


def test_the_kubernetes_job_is_one_of_our_own_launches(job: dict[str, Any]) -> None:
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:4] == ["python", "-m", "orchestrator", "launch"]
    options = {word for word in words if word.startswith("--")}
    known = {f"--{name.replace('_', '-')}" for name in inspect.signature(launch).parameters}
    assert options <= known
    assert words[words.index("--address") + 1] == "auto"


def test_the_kubernetes_cluster_asks_for_the_token_and_scales_from_zero(
    job: dict[str, Any],
) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == _pinned_ray()
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in cluster["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]
    assert job["spec"]["shutdownAfterJobFinishes"] is True


def test_the_kubernetes_pods_are_confined_and_promise_what_they_ask_for(
    job: dict[str, Any],
) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"].endswith("/defense-sweep:0.1.0")
        assert container["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        resources = container["resources"]
        assert resources["limits"]["memory"] == resources["requests"]["memory"]
    (worker,) = cluster["workerGroupSpecs"]
    limits = worker["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1" and int(limits["cpu"]) >= MOST_ON_A_GPU
