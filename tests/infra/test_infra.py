"""Machines: versions are pinned, ports are closed to others, and all files agree."""

import ast
import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from setuptools import find_namespace_packages

from flows.recipe import NightlyConfig
from tasks.meters import COUNTERS, GAUGES
from tasks.paths import PROJECT

INFRA = PROJECT / "infra"
COMPOSE_TEXT = (PROJECT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (INFRA / "Dockerfile").read_text().replace("\\\n", " ")
VERSION = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|KEY|AUTH_STRING")
ON_RAY = {
    name
    for name, service in SERVICES.items()
    if "RAY_ADDRESS" in service.get("environment", {}) or service.get("command", [""])[0] == "ray"
}
"""Services that are nodes of the Ray cluster."""
each_service = pytest.mark.parametrize("name", SERVICES)


def locked(lock: str) -> dict[str, str]:
    """Returns the version of each package in a lock."""
    text = (INFRA / "lock" / f"{lock}.txt").read_text()
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def stages() -> dict[str, str]:
    """Returns the steps of each stage of the Dockerfile, and before them those of its base."""
    steps: dict[str, str] = {}
    for base, name, body in re.findall(
        r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL
    ):
        steps[name] = steps.get(base, f"FROM {base}\n") + body
    return steps


@pytest.mark.parametrize(
    "file",
    [*INFRA.rglob("*.yaml"), *INFRA.rglob("*.yml")],
    ids=lambda path: path.name,
)
def test_every_yaml_file_parses(file: Path) -> None:
    assert all(yaml.safe_load_all(file.read_text()))


# docker-compose.yml


@each_service
def test_every_image_is_pinned(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].partition(":")
    assert re.match(r"v?\d+\.\d+", tag)
    if image == "precept":
        assert tag == f"{VERSION}-{SERVICES[name]['build']['target']}"


@each_service
def test_every_port_is_published_on_loopback_alone(name: str) -> None:
    assert all(str(port).startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))
    assert SERVICES[name].get("network_mode") != "host"


@each_service
def test_every_service_has_a_health_check_no_privileges_and_no_root(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["restart"] == "unless-stopped"
    assert service["user"].split(":")[0] not in ("0", "root")
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")


@each_service
def test_mounts_of_the_host_are_read_only_and_never_dockers_socket(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        if isinstance(mount, dict):
            assert mount["read_only"] and "docker.sock" not in mount["source"]
        elif mount.startswith((".", "/", "~", "$")):
            assert mount.endswith(":ro") and "docker.sock" not in mount
        else:
            assert mount.split(":")[0] in COMPOSE["volumes"]


def test_no_password_has_a_default() -> None:
    variables = re.findall(r"\$\{(\w+)([^}]*)\}", COMPOSE_TEXT)
    secrets = [(variable, rest) for variable, rest in variables if SECRET.search(variable)]
    assert len(secrets) >= 6
    assert all(rest.startswith(":?") for _, rest in secrets)
    for service in SERVICES.values():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable):
                assert value is None or "${" in value, variable


def test_env_example_has_every_variable_and_no_password() -> None:
    example = dict(re.findall(r"^#?([A-Z]\w*)=(.*)$", (PROJECT / ".env.example").read_text(), re.M))
    passed_on = {
        variable
        for service in SERVICES.values()
        for variable, value in service.get("environment", {}).items()
        if value is None
    }
    assert set(re.findall(r"\$\{(\w+)", COMPOSE_TEXT)) | passed_on == set(example)
    for variable, value in example.items():
        if SECRET.search(variable):
            assert not value or value.startswith("${"), variable


def test_every_ray_process_of_the_containers_requires_the_token() -> None:
    assert len(ON_RAY) == 4
    for name in ON_RAY:
        assert SERVICES[name]["environment"]["RAY_AUTH_MODE"] == "token"


def test_postgres_shares_a_network_with_the_prefect_server_alone() -> None:
    [network] = SERVICES["postgres"]["networks"]
    assert COMPOSE["networks"][network]["internal"]
    sharing = {name for name, service in SERVICES.items() if network in service["networks"]}
    assert sharing == {"postgres", "prefect-server"}


def test_telemetry_is_off_in_every_image() -> None:
    for setting in (
        "DO_NOT_TRACK=1",
        "HF_HUB_DISABLE_TELEMETRY=1",
        "PREFECT_SERVER_ANALYTICS_ENABLED=false",
        "RAY_USAGE_STATS_ENABLED=0",
        "VLLM_NO_USAGE_STATS=1",
    ):
        assert setting in stages()["cpu"] and setting in stages()["gpu"]
    grafana = SERVICES["grafana"]["environment"]
    analytics = [value for name, value in grafana.items() if name.startswith("GF_ANALYTICS_")]
    assert len(analytics) == 4 and set(analytics) == {"false"}
    assert grafana["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"
    assert "-master.telemetry=false" in SERVICES["s3"]["command"]


# The image


def test_the_image_installs_the_locks_and_their_hashes_as_the_makefile_does() -> None:
    installs = re.findall(r"pip install [^|&\n]*", DOCKERFILE)
    locks = [re.sub(r"\s+", " ", line).strip() for line in installs if "/lock/" in line]
    for target in ("cpu", "gpu"):
        assert f"pip install --no-deps --require-hashes -r /lock/{target}.txt" in locks
    makefile = (PROJECT / "Makefile").read_text().replace("\\\n", " ")
    lines = re.findall(r"\$\(PIP\) install ([^|\n]*-r [^|\n]*)", makefile)
    # The weights of the real chain are for make real alone.
    lines = [line for line in lines if "smollm2" not in line]
    in_makefile = [
        re.sub(r"\s+", " ", line.replace("infra/lock", "/lock")).strip() for line in lines
    ]
    in_image = [line.removeprefix("pip install ") for line in locks if "gpu" not in line]
    assert in_makefile == in_image
    assert all("--no-deps" in line for line in installs)


def test_the_image_is_slim_without_root_and_new_sources_reuse_the_installed_packages() -> None:
    by_stage = stages()
    for target in ("cpu", "gpu"):
        steps = by_stage[target]
        assert steps.startswith("FROM python:${PYTHON}-slim-")
        assert steps.index("/opt/venv /opt/venv") < steps.index("COPY . /app")
        assert re.findall(r"^USER (\S+)", steps, re.MULTILINE)[-1] == "precept"
    assert not re.search(r"g\+\+|gcc|build-essential", by_stage["cpu"])


def test_the_image_holds_all_python_packages_and_no_secrets() -> None:
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    setuptools = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]
    kept = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert {name.rstrip("*") for name in setuptools["packages"]["find"]["include"]} <= kept
    assert not [rule for rule in kept if ".env" in rule]


def test_versions_in_every_file_are_those_of_the_locks() -> None:
    cpu, gpu = locked("cpu"), locked("gpu")
    for package in ("prefect", "ray"):
        assert cpu[package] == gpu[package]
    [python] = re.findall(r"^ARG PYTHON=(\d+\.\d+)\.\d+$", DOCKERFILE, re.MULTILINE)
    assert f"--python-version {python} " in (PROJECT / "Makefile").read_text()
    assert f"python{python} -m venv" in (INFRA / "ray-cluster.yaml").read_text()
    assert kuberay()["spec"]["rayVersion"] == cpu["ray"]
    assert prefect_file()["prefect-version"] == cpu["prefect"]
    operations = (INFRA / "OPERATIONS.md").read_text()
    assert f"prefecthq/prefect:{cpu['prefect']}-python{python}-kubernetes" in operations


def test_the_image_has_the_same_name_everywhere() -> None:
    files = ("Dockerfile", "kuberay.yaml", "prefect.yaml")
    text = COMPOSE_TEXT + "".join((INFRA / file).read_text() for file in files)
    assert set(re.findall(r"\bprecept:(\d[\w.-]*)", text)) == {f"{VERSION}-cpu", f"{VERSION}-gpu"}


# The wheel

DATA_FILES = {
    *("flows/recipes/*.toml", "flows/starter*/**/*", "flows/suites/*.toml"),
    *("specs/*/*.md", "specs/*/*.toml", "specs/templates/*/*.md"),
    *("warehouse/lookups/*.sql", "warehouse/pending/*.sql"),
    *("warehouse/queries/*.sql", "warehouse/views/*.sql", "warehouse/reports/page.*"),
    *("infra/harbour/attacker.toml", "infra/harbour/model/*", "infra/harbour/prompts/*"),
    "infra/lock/*.txt",
}
"""Patterns of the files that the product reads from its own packages."""


def unpacked(files: Iterable[Path], setuptools: dict[str, Any]) -> list[Path]:
    """Returns the files that a wheel leaves out: of no package, or of no pattern of its data."""
    packages = find_namespace_packages(
        str(PROJECT), include=setuptools["packages"]["find"]["include"]
    )
    folders = {PROJECT.joinpath(*package.split(".")) for package in packages}
    patterns = setuptools["package-data"]["*"]
    return [
        file for file in files if file.parent not in folders or not any(map(file.match, patterns))
    ]


def test_the_wheel_holds_every_file_that_the_product_reads() -> None:
    by_pattern = {
        pattern: [path for path in PROJECT.glob(pattern) if path.is_file()]
        for pattern in DATA_FILES
    }
    assert all(by_pattern.values())
    # A new kind of file in the four packages must be packed too, whoever reads it.
    others = (
        file
        for package in ("flows", "tasks", "specs", "warehouse")
        for file in (PROJECT / package).rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc")
    )
    files = {*itertools.chain(*by_pattern.values(), others)}
    setuptools = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert unpacked(files, setuptools) == []


def test_a_file_that_the_wheel_leaves_out_would_be_found() -> None:
    setuptools = {
        "packages": {"find": {"include": ["warehouse*"]}},
        "package-data": {"*": ["*.sql"]},
    }
    packed = PROJECT / "warehouse" / "views" / "tables.sql"
    left_out = [PROJECT / "warehouse" / "README.md", PROJECT / "specs" / "a.sql"]
    assert unpacked([packed, *left_out], setuptools) == left_out


# Files of Prefect and Ray


def prefect_file() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((INFRA / "prefect.yaml").read_text())
    return loaded


def kuberay() -> dict[str, Any]:
    resources: list[dict[str, Any]] = list(yaml.safe_load_all((INFRA / "kuberay.yaml").read_text()))
    [cluster] = [resource for resource in resources if resource["kind"] == "RayCluster"]
    return cluster


def test_each_pool_has_the_deployments_of_precept_serve() -> None:
    source = PROJECT / "flows" / "deployments.py"
    tree = ast.parse(source.read_text())
    dicts = [
        {
            ast.unparse(key): ast.unparse(value)
            for key, value in zip(node.keys, node.values, strict=True)
            if key
        }
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
    ]
    [titles] = [titles for titles in dicts if "'refresh-nightly'" in titles]
    served = {ast.literal_eval(title): flow for title, flow in titles.items()}
    assert set(served.values()) <= {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef)
    }
    deployed: dict[str, dict[str, str]] = {}
    for deployment in prefect_file()["deployments"]:
        pool = deployment["work_pool"]["name"]
        path, flow = deployment["entrypoint"].split(":")
        assert path == "flows/deployments.py"
        deployed.setdefault(pool, {})[deployment["name"].removesuffix(f"-{pool}")] = flow
        assert deployment["concurrency_limit"]["limit"] == 1
    assert deployed == dict.fromkeys(("process", "docker", "kubernetes"), served)


def test_the_deployed_schedule_is_the_recipes_default() -> None:
    deployments = prefect_file()["deployments"]
    scheduled = [deployment for deployment in deployments if "schedules" in deployment]
    assert {deployment["entrypoint"].split(":")[1] for deployment in scheduled} == {"nightly"}
    default = NightlyConfig()
    for deployment in scheduled:
        [schedule] = deployment["schedules"]
        assert (schedule["cron"], schedule["timezone"]) == (default.cron, default.timezone)


def test_the_docker_pool_names_networks_and_volumes_of_the_compose_file() -> None:
    variables = prefect_file()["definitions"]["docker"]["job_variables"]
    project = COMPOSE["name"]
    assert {name.removeprefix(f"{project}_") for name in variables["networks"]} <= set(
        COMPOSE["networks"]
    )
    named = [mount.split(":")[0] for mount in variables["volumes"] if not mount.startswith("/")]
    assert {name.removeprefix(f"{project}_") for name in named} <= set(COMPOSE["volumes"])


def test_runs_of_every_pool_have_a_warehouse_and_a_recipe_and_log_to_prefect() -> None:
    pools = [prefect_file()["definitions"][name] for name in ("docker", "kubernetes")]
    worker = SERVICES["prefect-worker"]["environment"]
    for env in (worker, *(pool["job_variables"]["env"] for pool in pools)):
        assert {"PRECEPT_HOME", "PRECEPT_SCRATCH", "PRECEPT_RECIPE"} <= set(env)
        assert env["PREFECT_LOGGING_EXTRA_LOGGERS"] == "precept"
        assert not [name for name in env if name.startswith("AWS_") and env[name]]


def test_leases_of_the_prefect_server_outlive_its_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    server = SERVICES["prefect-server"]
    storage = server["environment"]["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"]
    monkeypatch.setenv("PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE", storage)
    from prefect.server.concurrency.lease_storage import get_concurrency_lease_storage
    from prefect.settings import temporary_settings

    with temporary_settings():
        assert type(get_concurrency_lease_storage()).__module__ == storage
    home = server["environment"]["PREFECT_HOME"]
    assert home in {mount.split(":")[1] for mount in server["volumes"]}
    # A volume takes its owner from the image.
    assert re.search(rf"install -d -o precept -g precept {home} ", DOCKERFILE)


def test_ray_accepts_the_cluster_file_which_holds_no_secret() -> None:
    spec = importlib.util.find_spec("ray")
    assert spec and spec.submodule_search_locations
    schema = Path(spec.submodule_search_locations[0]) / "autoscaler" / "ray-schema.json"
    text = (INFRA / "ray-cluster.yaml").read_text()
    config = yaml.safe_load(text)
    jsonschema.validate(config, json.loads(schema.read_text()))
    assert "RAY_AUTH_TOKEN=" not in text
    for start in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in start[-1]


def test_the_kubernetes_cluster_has_workers_with_and_without_gpus_and_requires_the_token() -> None:
    spec = kuberay()["spec"]
    assert spec["authOptions"]["mode"] == "token"
    groups = {group["groupName"]: group["template"]["spec"] for group in spec["workerGroupSpecs"]}
    assert set(groups) == {"cpu", "gpu"}
    for name, pod in (groups | {"cpu-head": spec["headGroupSpec"]["template"]["spec"]}).items():
        [container] = pod["containers"]
        assert container["image"].endswith(f"-{name[:3]}")
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (name == "gpu")
        assert pod["securityContext"]["runAsNonRoot"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes


# Metrics

PROMETHEUS = yaml.safe_load((INFRA / "prometheus.yml").read_text())
DASHBOARD = json.loads((INFRA / "grafana" / "dashboards" / "precept.json").read_text())
PROMQL = {
    *("sum", "avg", "max", "min", "count", "by", "rate", "increase", "histogram_quantile"),
    *("le", "table", "status", "stage", "kind", "instance"),
    *("WorkerId", "GpuIndex", "Location", "State", "Source"),
}
"""Functions and labels in the queries, which are not metrics."""


def test_prometheus_scrapes_every_ray_node_at_the_port_it_exports_to() -> None:
    jobs = {job["job_name"]: job for job in PROMETHEUS["scrape_configs"]}
    [targets] = jobs["ray"]["dns_sd_configs"]
    assert set(targets["names"]) == ON_RAY
    option = f"--metrics-export-port={targets['port']}"
    assert option in (INFRA / "on_cluster.sh").read_text()
    for name in ON_RAY:
        if SERVICES[name]["command"][0] == "ray":
            assert option in SERVICES[name]["command"]


def test_metrics_that_ray_exports_for_precept_and_vllm_get_their_own_names_back() -> None:
    [ray] = [job for job in PROMETHEUS["scrape_configs"] if job["job_name"] == "ray"]

    def stored(name: str) -> str:
        for rule in ray["metric_relabel_configs"]:
            assert rule["source_labels"] == ["__name__"] == [rule["target_label"]]
            if match := re.fullmatch(rule["regex"], name):
                name = match.expand(rule["replacement"].replace("$", "\\"))
        return name

    assert stored("ray_precept_rows_total") == "precept_rows_total"
    assert stored("ray_vllm_num_requests_running") == "vllm:num_requests_running"
    assert stored("ray_node_cpu_utilization") == "ray_node_cpu_utilization"


def metrics_on_the_dashboard() -> set[str]:
    """Returns the names of the metrics in the dashboard's queries."""
    queries = [
        target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])
    ]
    bare = re.sub(r'"[^"]*"|\[\w+\]', "", " ".join(queries))
    return set(re.findall(r"[A-Za-z_][\w:]*", bare)) - PROMQL


def test_every_metric_on_the_dashboard_is_one_of_ray_vllm_or_precept() -> None:
    def source(package: str, *folder: str) -> str:
        spec = importlib.util.find_spec(package)
        assert spec and spec.submodule_search_locations
        root = Path(spec.submodule_search_locations[0]).joinpath(*folder)
        return "".join(path.read_text() for path in root.rglob("*.py"))

    ray = source("ray", "dashboard", "modules")
    vllm = source("vllm", "v1", "metrics")
    table = (INFRA / "OPERATIONS.md").read_text()
    metrics = metrics_on_the_dashboard()
    assert {metric[:4] for metric in metrics} == {"ray_", "vllm", "prec"}
    for metric in metrics:
        if metric.startswith("ray_"):
            assert re.search(rf"\b(ray_)?{metric.removeprefix('ray_')}\b", ray), metric
        elif metric.startswith("vllm:"):
            assert f'"{re.sub(r"_(total|bucket)$", "", metric)}"' in vllm, metric
        else:
            assert metric.removesuffix("_total") in COUNTERS | GAUGES, metric
            assert f"| `{metric}` |" in table, metric


def test_grafana_has_its_dashboard_and_the_dashboard_its_data_source() -> None:
    provisioned = INFRA / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioned / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"].removeprefix("http://").split(":")[0] in SERVICES
    used = {
        target["datasource"]["uid"]
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", [])
    }
    assert used == {source["uid"]}
    panel_ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(panel_ids) == len(set(panel_ids))
    [provider] = yaml.safe_load((provisioned / "dashboards" / "precept.yaml").read_text())[
        "providers"
    ]
    mounts = [mount.split(":") for mount in SERVICES["grafana"]["volumes"]]
    folders = {target: source for source, target, *_ in mounts}
    assert (PROJECT / folders[provider["options"]["path"]]).samefile(INFRA / "grafana/dashboards")


# on_cluster.sh


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """Returns an environment in which a file stands for Ray's node, and `sleep` is short."""
    node = tmp_path / "node"
    tools = {
        "ray": f"""echo "$@" >> {tmp_path}/log
            case $1 in start) touch {node};; stop) rm -f {node};; esac""",
        "grep": f"test -e {node}",
        "sleep": f"exec {shutil.which('sleep')} 0.05",
    }
    for name, body in tools.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "RAY_ADDRESS": "head:6379",
        "NODE": str(node),
    }


def on_cluster(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [INFRA / "on_cluster.sh", "bash", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_a_driver_joins_the_cluster_without_processors_and_leaves_it(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    done = on_cluster('test -e "$NODE" && exit 3', cluster)
    assert done.returncode == 3
    start, stop = (tmp_path / "log").read_text().splitlines()
    assert start.startswith("start --address=head:6379 --num-cpus=0 --num-gpus=0 ")
    assert stop.startswith("stop") and not (tmp_path / "node").exists()


def test_a_driver_whose_node_is_lost_is_ended_and_counts_as_failed(cluster: dict[str, str]) -> None:
    work = 'trap "echo ended; exit 0" TERM; rm "$NODE"; for _ in {1..100}; do sleep 1; done'
    done = on_cluster(work, cluster)
    assert (done.returncode, done.stdout) == (1, "ended\n")
    assert "lost this node of the Ray cluster at head:6379" in done.stderr


def test_a_command_runs_alone_without_a_cluster_or_on_one_of_its_nodes(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    assert on_cluster("exit 4", cluster | {"RAY_ADDRESS": ""}).returncode == 4
    (tmp_path / "node").touch()
    assert on_cluster("exit 5", cluster).returncode == 5
    assert not (tmp_path / "log").exists()
