"""The instance files name fields that the installed Dagster has, and what they say holds together."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._config import process_config, validate_config
from dagster._core.instance.config import dagster_instance_config, dagster_instance_config_schema
from dagster._core.instance.ref import InstanceRef
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster_k8s import K8sRunLauncher
from dagster_k8s.job import (
    DagsterK8sJobConfig,
    UserDefinedDagsterK8sConfig,
    construct_dagster_k8s_job,
)
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import create_pg_engine, pg_url_from_config

from resources.dagster.asset_keys import LOCATION
from resources.settings import CHECKOUT

FILES = CHECKOUT / "dagster_home"
POSTGRES = {
    "MILLRACE_PG_HOST": "postgres.example",
    "MILLRACE_PG_PORT": "5432",
    "MILLRACE_PG_DB": "dagster",
    "MILLRACE_PG_USER": "dagster",
    "MILLRACE_PG_PASSWORD": "not in the file",
}
PASSED_ON = {
    "containerConfig",
    "podSpecConfig",
    "podTemplateSpecMetadata",
    "jobSpecConfig",
    "jobMetadata",
}
"""What the chart takes of ``runK8sConfig``; it drops all else without a word."""


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((FILES / name).read_text(encoding="utf-8"))
    return document


@pytest.fixture
def postgres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in POSTGRES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    shutil.copy(FILES / "production.yaml", tmp_path / "dagster.yaml")
    return tmp_path


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def snake_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    return {snake(name): value for name, value in values.items()}


@pytest.mark.parametrize("name", ["dagster.yaml", "production.yaml"])
def test_dagster_takes_the_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    shutil.copy(FILES / name, tmp_path / "dagster.yaml")
    values, _ = dagster_instance_config(str(tmp_path))
    assert values["telemetry"] == {"enabled": False}
    assert values["run_retries"]["retry_on_asset_or_op_failure"] is False
    assert values["run_monitoring"]["enabled"] is True
    assert values["freshness"] == {"enabled": True}


@pytest.mark.parametrize("name", ["dagster.yaml", "production.yaml", "helm/values.yaml"])
def test_every_setting_has_its_reason(name: str) -> None:
    """A block of settings, or the line above a single one, says why."""
    unexplained = []
    lines = (FILES / name).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        opens = re.fullmatch(r"(\w[\w-]*):.*", line)
        if not opens:
            continue
        block = [line]
        for following in lines[number + 1 :]:
            if following and not following.startswith((" ", "#")):
                break
            block.append(following)
        above = lines[number - 1].startswith("#") or (
            number and re.fullmatch(r"\w[\w-]*:.*", lines[number - 1])
        )
        if not above and not any(inner.strip().startswith("#") for inner in block[1:]):
            unexplained.append(opens[1])
    assert set(unexplained) <= {"global", "telemetry"}


def test_production_is_postgres_by_the_environment_and_opens_nothing(postgres: Path) -> None:
    ref = InstanceRef.from_dir(str(postgres))
    assert ref.storage_data is not None
    assert ref.storage_data.class_name == DagsterPostgresStorage.__name__
    config = yaml.safe_load(ref.storage_data.config_yaml)
    resolved = process_config(DagsterPostgresStorage.config_type(), config)
    assert resolved.success, resolved.errors
    assert resolved.value is not None
    engine = create_pg_engine(pg_url_from_config(resolved.value))
    assert engine.dialect.driver == "psycopg2"
    assert "not in the file" not in (postgres / "dagster.yaml").read_text(encoding="utf-8")
    assert isinstance(ref.run_coordinator, QueuedRunCoordinator)


@pytest.fixture(scope="module")
def chart() -> dict[str, Any]:
    return read("helm/values.yaml")


def test_the_chart_and_the_file_say_the_same(chart: dict[str, Any]) -> None:
    production = read("production.yaml")
    database = production["storage"]["postgres"]["postgres_db"]
    assert chart["postgresql"]["postgresqlScheme"] == database["scheme"]
    daemon, more = chart["dagsterDaemon"], chart["additionalInstanceConfig"]
    monitoring = snake_keys(daemon["runMonitoring"])
    assert monitoring == {
        name: value
        for name, value in production["run_monitoring"].items()
        if name != "max_runtime_seconds"
    }
    assert snake_keys(daemon["runRetries"]).items() <= production["run_retries"].items()
    assert snake_keys(daemon["sensors"]) == production["sensors"]
    assert snake_keys(daemon["schedules"]) == production["schedules"]
    for kind in ("schedule", "sensor"):
        assert snake_keys(chart["retention"][kind]) == production["retention"][kind]
    for kind in ("runs", "pools"):
        assert snake_keys(chart["concurrency"][kind]) == production["concurrency"][kind]
    for name in ("backfills", "code_servers", "freshness"):
        assert more[name] == production[name]


def test_what_the_chart_passes_on_is_of_dagsters_schema(chart: dict[str, Any]) -> None:
    more = validate_config(dagster_instance_config_schema(), chart["additionalInstanceConfig"])
    assert more.success, more.errors
    coordinator = chart["dagsterDaemon"]["runCoordinator"]["config"]["queuedRunCoordinator"]
    known = validate_config(QueuedRunCoordinator.config_type(), snake_keys(coordinator))
    assert known.success, known.errors


def launcher(chart: dict[str, Any]) -> dict[str, Any]:
    assert chart["runLauncher"]["type"] == K8sRunLauncher.__name__
    config = snake_keys(chart["runLauncher"]["config"]["k8sRunLauncher"])
    assert set(config["run_k8s_config"]) <= PASSED_ON
    return {**config, "run_k8s_config": snake_keys(config["run_k8s_config"])}


def test_the_launchers_fields_are_those_of_the_installed_one(chart: dict[str, Any]) -> None:
    added_by_the_chart = {
        "service_account_name": "dagster",
        "instance_config_map": "dagster-instance",
        "postgres_password_secret": chart["global"]["postgresqlSecretName"],
        "dagster_home": "/opt/dagster/dagster_home",
    }
    config = {**launcher(chart), **added_by_the_chart}
    found = validate_config(K8sRunLauncher.config_type(), config)
    assert found.success, found.errors


def test_a_run_is_one_pod_with_one_spark_that_starts_before_and_ends_with_it(
    chart: dict[str, Any],
) -> None:
    defined = UserDefinedDagsterK8sConfig.from_dict(launcher(chart)["run_k8s_config"])
    job = construct_dagster_k8s_job(
        DagsterK8sJobConfig(job_image="millrace", dagster_home="/home"),
        args=["dagster", "api", "execute_run"],
        job_name="run",
        user_defined_k8s_config=defined,
    )
    assert job.spec.ttl_seconds_after_finished == 86_400
    pod = job.spec.template.spec
    [spark] = pod.init_containers
    assert spark.restart_policy == "Always"
    assert spark.startup_probe is not None
    settings = dict(part.split("=", 1) for part in spark.args if "=" in part)
    [run] = pod.containers
    remote = {env.name: env.value for env in run.env}["MILLRACE_SPARK_REMOTE"]
    assert remote == f"sc://localhost:{settings['spark.connect.grpc.binding.port']}"
    assert settings["spark.sql.extensions"] == "io.delta.sql.DeltaSparkSessionExtension"
    assert f"local[{spark.resources.requests['cpu']}]" == settings["spark.master"]
    assert {m.name for m in spark.volume_mounts} <= {v.name for v in pod.volumes}


def test_the_code_location_is_the_one_that_the_command_looks_for(chart: dict[str, Any]) -> None:
    [deployment] = chart["dagster-user-deployments"]["deployments"]
    assert deployment["name"] == LOCATION
    assert deployment["codeServerArgs"] == ["-m", "jobs.definitions", "-a", "defs"]
    assert deployment["includeConfigInLaunchedRuns"] == {"enabled": True}
    names = {env["name"] for env in deployment["env"]}
    documented = (CHECKOUT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}`" not in documented] == []


def test_no_secret_stands_in_the_values() -> None:
    text = (FILES / "helm" / "values.yaml").read_text(encoding="utf-8").lower()
    assert not re.search(
        r"(password|secret|token)\w*: +[\"']?(?!dagster-postgresql-secret|false)\w", text
    )
