"""What the factory runs on: nothing open or unpinned, and every file agrees with the locks."""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from flows.recipe import NightlyConfig
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
    text = (INFRA / "lock" / f"{lock}.txt").read_text()
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def stages() -> dict[str, str]:
    """The Dockerfile's stages by name, with what they do and the stages they begin from."""
    found: dict[str, str] = {}
    for base, name, body in re.findall(
        r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL
    ):
        found[name] = found.get(base, f"FROM {base}\n") + body
    return found


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
def test_every_service_is_watched_confined_and_not_root(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["restart"] == "unless-stopped"
    assert service["user"].split(":")[0] not in ("0", "root")
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")


@each_service
def test_what_is_mounted_from_the_host_is_read_only_and_never_dockers_socket(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        if isinstance(mount, dict):
            assert mount["read_only"] and "docker.sock" not in mount["source"]
        elif mount.startswith((".", "/", "~", "$")):
            assert mount.endswith(":ro") and "docker.sock" not in mount
        else:
            assert mount.split(":")[0] in COMPOSE["volumes"]


def test_no_password_has_a_default() -> None:
    asked = re.findall(r"\$\{(\w+)([^}]*)\}", COMPOSE_TEXT)
    secrets = [(variable, rest) for variable, rest in asked if SECRET.search(variable)]
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


def test_every_ray_process_of_the_containers_wants_the_token() -> None:
    assert len(ON_RAY) == 4
    for name in ON_RAY:
        assert SERVICES[name]["environment"]["RAY_AUTH_MODE"] == "token"


def test_postgres_shares_a_network_with_the_prefect_server_alone() -> None:
    [network] = SERVICES["postgres"]["networks"]
    assert COMPOSE["networks"][network]["internal"]
    sharing = {name for name, service in SERVICES.items() if network in service["networks"]}
    assert sharing == {"postgres", "prefect-server"}


def test_nothing_phones_home() -> None:
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
    locks = [re.sub(r"\s+", " ", one).strip() for one in installs if "/lock/" in one]
    for target in ("cpu", "gpu"):
        assert f"pip install --no-deps --require-hashes -r /lock/{target}.txt" in locks
    makefile = (PROJECT / "Makefile").read_text().replace("\\\n", " ")
    wanted = re.findall(r"\$\(PIP\) install ([^|\n]*-r [^|\n]*)", makefile)
    assert [re.sub(r"\s+", " ", one.replace("infra/lock", "/lock")).strip() for one in wanted] == [
        one.removeprefix("pip install ") for one in locks if "gpu" not in one
    ]
    assert all("--no-deps" in one for one in installs)


def test_the_image_is_slim_without_root_and_a_change_of_sources_installs_nothing_anew() -> None:
    found = stages()
    for target in ("cpu", "gpu"):
        steps = found[target]
        assert steps.startswith("FROM python:${PYTHON}-slim-")
        assert steps.index("/opt/venv /opt/venv") < steps.index("COPY . /app")
        assert re.findall(r"^USER (\S+)", steps, re.MULTILINE)[-1] == "precept"
    # Without a compiler vLLM's CPU sampler must not be compiled.
    assert not re.search(r"g\+\+|gcc|build-essential", found["cpu"])
    assert "TORCH_COMPILE_DISABLE=1" in found["cpu"]
    assert "TORCH_COMPILE_DISABLE" not in found["gpu"]


def test_the_image_holds_what_python_packages_there_are_and_no_secrets() -> None:
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    setuptools = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]
    kept = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert {name.rstrip("*") for name in setuptools["packages"]["find"]["include"]} <= kept
    assert not [rule for rule in kept if ".env" in rule]


def test_versions_are_those_of_the_locks() -> None:
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


def test_our_image_has_one_name_everywhere() -> None:
    files = ("Dockerfile", "kuberay.yaml", "prefect.yaml")
    text = COMPOSE_TEXT + "".join((INFRA / file).read_text() for file in files)
    assert set(re.findall(r"\bprecept:(\d[\w.-]*)", text)) == {f"{VERSION}-cpu", f"{VERSION}-gpu"}


# Prefect's and Ray's own files


def prefect_file() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((INFRA / "prefect.yaml").read_text())
    return loaded


def kuberay() -> dict[str, Any]:
    [cluster] = [
        one
        for one in yaml.safe_load_all((INFRA / "kuberay.yaml").read_text())
        if one["kind"] == "RayCluster"
    ]
    found: dict[str, Any] = cluster
    return found


def test_each_pool_is_deployed_what_precept_serve_offers() -> None:
    source = PROJECT / "flows" / "deployments.py"
    tree = ast.parse(source.read_text())
    dicts = [
        {
            ast.unparse(key): ast.unparse(value)
            for key, value in zip(one.keys, one.values, strict=True)
            if key
        }
        for one in ast.walk(tree)
        if isinstance(one, ast.Dict)
    ]
    [titles] = [one for one in dicts if "'refresh-nightly'" in one]
    offered = {ast.literal_eval(title): flow for title, flow in titles.items()}
    assert set(offered.values()) <= {
        one.name for one in tree.body if isinstance(one, ast.FunctionDef)
    }
    deployed: dict[str, dict[str, str]] = {}
    for one in prefect_file()["deployments"]:
        pool = one["work_pool"]["name"]
        path, flow = one["entrypoint"].split(":")
        assert path == "flows/deployments.py"
        deployed.setdefault(pool, {})[one["name"].removesuffix(f"-{pool}")] = flow
        assert one["concurrency_limit"]["limit"] == 1
    assert deployed == dict.fromkeys(("process", "docker", "kubernetes"), offered)


def test_the_deployed_schedule_is_the_recipes_default() -> None:
    scheduled = [one for one in prefect_file()["deployments"] if "schedules" in one]
    assert {one["entrypoint"].split(":")[1] for one in scheduled} == {"nightly"}
    plain = NightlyConfig()
    for one in scheduled:
        [schedule] = one["schedules"]
        assert (schedule["cron"], schedule["timezone"]) == (plain.cron, plain.timezone)


def test_the_docker_pool_names_networks_and_volumes_of_the_compose_file() -> None:
    variables = prefect_file()["definitions"]["docker"]["job_variables"]
    project = COMPOSE["name"]
    assert {name.removeprefix(f"{project}_") for name in variables["networks"]} <= set(
        COMPOSE["networks"]
    )
    named = [mount.split(":")[0] for mount in variables["volumes"] if not mount.startswith("/")]
    assert {name.removeprefix(f"{project}_") for name in named} <= set(COMPOSE["volumes"])


def test_runs_of_every_pool_find_their_warehouse_and_recipe_and_log_to_prefect() -> None:
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


def test_ray_reads_the_cluster_file_and_no_secret_stands_in_it() -> None:
    spec = importlib.util.find_spec("ray")
    assert spec and spec.submodule_search_locations
    schema = Path(spec.submodule_search_locations[0]) / "autoscaler" / "ray-schema.json"
    text = (INFRA / "ray-cluster.yaml").read_text()
    config = yaml.safe_load(text)
    jsonschema.validate(config, json.loads(schema.read_text()))
    assert "RAY_AUTH_TOKEN=" not in text
    for start in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in start[-1]


def test_the_kubernetes_cluster_has_workers_with_and_without_gpus_and_wants_the_token() -> None:
    spec = kuberay()["spec"]
    assert spec["authOptions"]["mode"] == "token"
    groups = {one["groupName"]: one["template"]["spec"] for one in spec["workerGroupSpecs"]}
    assert set(groups) == {"cpu", "gpu"}
    for name, pod in (groups | {"cpu-head": spec["headGroupSpec"]["template"]["spec"]}).items():
        [container] = pod["containers"]
        assert container["image"].endswith(f"-{name[:3]}")
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (name == "gpu")
        assert pod["securityContext"]["runAsNonRoot"]
        volumes = {one["name"] for one in pod["volumes"]}
        assert {one["name"] for one in container["volumeMounts"]} == volumes


# Figures

PROMETHEUS = yaml.safe_load((INFRA / "prometheus.yml").read_text())
DASHBOARD = json.loads((INFRA / "grafana" / "dashboards" / "precept.json").read_text())
PROMQL = {
    *("sum", "avg", "max", "min", "count", "by", "rate", "increase", "histogram_quantile"),
    *("le", "table", "status", "stage", "kind", "instance"),
    *("WorkerId", "GpuIndex", "Location", "State", "Source"),
}
"""Words of the queries that are no figures."""


def test_prometheus_asks_services_that_exist_where_they_answer() -> None:
    jobs = {one["job_name"]: one for one in PROMETHEUS["scrape_configs"]}
    [found] = jobs["ray"]["dns_sd_configs"]
    assert set(found["names"]) == ON_RAY
    option = f"--metrics-export-port={found['port']}"
    assert option in (INFRA / "on_cluster.sh").read_text()
    for name in ON_RAY:
        if SERVICES[name]["command"][0] == "ray":
            assert option in SERVICES[name]["command"]


def test_figures_that_ray_exports_for_others_get_their_own_names_back() -> None:
    [ray] = [one for one in PROMETHEUS["scrape_configs"] if one["job_name"] == "ray"]

    def stored(name: str) -> str:
        for rule in ray["metric_relabel_configs"]:
            assert rule["source_labels"] == ["__name__"] == [rule["target_label"]]
            if match := re.fullmatch(rule["regex"], name):
                name = match.expand(rule["replacement"].replace("$", "\\"))
        return name

    assert stored("ray_precept_rows_total") == "precept_rows_total"
    assert stored("ray_vllm_num_requests_running") == "vllm:num_requests_running"
    assert stored("ray_node_cpu_utilization") == "ray_node_cpu_utilization"


def asked_for() -> set[str]:
    """The figures that the dashboard asks for."""
    queries = [
        target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])
    ]
    bare = re.sub(r'"[^"]*"|\[\w+\]', "", " ".join(queries))
    return set(re.findall(r"[A-Za-z_][\w:]*", bare)) - PROMQL


def test_the_dashboard_asks_for_figures_that_ray_vllm_and_precept_have() -> None:
    def source(package: str, *folder: str) -> str:
        spec = importlib.util.find_spec(package)
        assert spec and spec.submodule_search_locations
        root = Path(spec.submodule_search_locations[0]).joinpath(*folder)
        return "".join(path.read_text() for path in root.rglob("*.py"))

    ray = source("ray", "dashboard", "modules")
    vllm = source("vllm", "v1", "metrics")
    table = (INFRA / "OPERATIONS.md").read_text()
    figures = asked_for()
    assert {figure[:4] for figure in figures} == {"ray_", "vllm", "prec"}
    for figure in figures:
        if figure.startswith("ray_"):
            assert re.search(rf"\b(ray_)?{figure.removeprefix('ray_')}\b", ray), figure
        elif figure.startswith("vllm:"):
            assert f'"{re.sub(r"_(total|bucket)$", "", figure)}"' in vllm, figure
        else:
            assert figure.startswith("precept_") and f"| `{figure}` |" in table, figure


def test_grafana_finds_its_dashboard_and_the_dashboard_its_source() -> None:
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
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(identities) == len(set(identities))
    [provider] = yaml.safe_load((provisioned / "dashboards" / "precept.yaml").read_text())[
        "providers"
    ]
    mounts = [mount.split(":") for mount in SERVICES["grafana"]["volumes"]]
    folders = {target: source for source, target, *_ in mounts}
    assert (PROJECT / folders[provider["options"]["path"]]).samefile(INFRA / "grafana/dashboards")


# on_cluster.sh


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """An environment with a `ray` whose node is a file, and a short sleep."""
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


def test_a_driver_whose_node_is_lost_is_ended_as_failed(cluster: dict[str, str]) -> None:
    work = 'trap "echo told; exit 0" TERM; rm "$NODE"; for _ in {1..100}; do sleep 1; done'
    done = on_cluster(work, cluster)
    assert (done.returncode, done.stdout) == (1, "told\n")
    assert "lost this node of the Ray cluster at head:6379" in done.stderr


def test_without_a_cluster_or_on_a_node_of_it_a_command_just_runs(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    assert on_cluster("exit 4", cluster | {"RAY_ADDRESS": ""}).returncode == 4
    (tmp_path / "node").touch()
    assert on_cluster("exit 5", cluster).returncode == 5
    assert not (tmp_path / "log").exists()
