"""What Kafka, Flink, the store and the repository's own programs would be started with."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from millrace.errors import SetupError
from resources.flink.slots import MOST_WORKERS, ask_for_slots, wanted_slots
from resources.settings import settings_from_env
from stack import flink
from stack.catalogue import all_parts
from stack.kafka import kafka_part, prepare_storage
from stack.parts import Context, Launch, Part
from stack.python_parts import archive_part, server_part, writer_part
from stack.store import store_part
from tests.support.background_server import in_background


class Ports:
    """Numbers in the order of asking, and the purposes that asked for one of their own."""

    def __init__(self) -> None:
        self.given: dict[str, int] = {}
        self.fixed: set[str] = set()

    def free(self, purpose: str) -> int:
        return self.given.setdefault(purpose, 20_001 + len(self.given))

    def stay(self, purpose: str) -> int:
        self.fixed.add(purpose)
        return self.free(purpose)


def _described(part: Part, home: Path, **environ: str) -> tuple[Launch, Ports]:
    env = {**os.environ, "MILLRACE_HOME": str(home), **environ}
    ports = Ports()
    context = Context(settings_from_env(env), env, ports.free, ports.stay, "secret")
    return part.describe(context), ports


def test_every_part_is_there_after_what_it_needs() -> None:
    names = [part.name for part in all_parts()]
    assert names == ["kafka", "flink", "store", "writer", "archive", "spark", "server", "dagster"]
    for part in all_parts():
        assert all(names.index(need) < names.index(part.name) for need in part.needs)


@pytest.mark.parametrize(
    ("name", "variable", "url", "shown"),
    [
        ("kafka", "MILLRACE_KAFKA", "one:9092,two:9092", "one:9092,two:9092"),
        ("flink", "MILLRACE_FLINK_URL", "https://me:pw@flink/x", "https://flink/x"),
        ("store", "MILLRACE_STORE_URL", "rediss://:pw@store:6380/1", "rediss://store:6380/1"),
    ],
)
def test_a_service_of_the_users_own_replaces_a_part_and_its_password_is_not_shown(
    name: str, variable: str, url: str, shown: str
) -> None:
    (part,) = (part for part in all_parts() if part.name == name)
    assert part.external(settings_from_env({variable: url})) == shown
    assert part.external(settings_from_env({})) is None


def test_kafka_listens_on_this_machine_alone_at_ports_that_stay(tmp_path: Path) -> None:
    launch, ports = _described(kafka_part(), tmp_path)
    lines = (tmp_path / "kafka" / "server.properties").read_text().splitlines()
    told = dict(line.split("=", 1) for line in lines)
    assert told["listeners"] == "PLAINTEXT://127.0.0.1:20001,CONTROLLER://127.0.0.1:20002"
    assert told["log.message.timestamp.type"] == "LogAppendTime"
    assert told["auto.create.topics.enable"] == "false"
    assert told["log.dirs"] == str(tmp_path / "kafka" / "data")
    assert ports.fixed == {"broker", "controller"}
    assert launch.url == "127.0.0.1:20001"


def test_describing_kafka_again_leaves_its_files_alone(tmp_path: Path) -> None:
    _described(kafka_part(), tmp_path)
    configuration = tmp_path / "kafka" / "server.properties"
    before = configuration.stat().st_ino
    _described(kafka_part(), tmp_path)
    assert configuration.stat().st_ino == before


def test_a_log_folder_of_another_cluster_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").write_text("version=1\ncluster.id=theirs\n")
    (tmp_path / "cluster_id").write_text("ours")
    with pytest.raises(SetupError) as caught:
        prepare_storage(tmp_path, ("false",))
    assert "belongs to the Kafka cluster theirs, not to this home's, ours" in caught.value.what
    assert caught.value.where == str(tmp_path / "data")
    assert f"write theirs into {tmp_path / 'cluster_id'}" in caught.value.fix


def test_a_cluster_id_that_begins_with_a_dash_is_no_option(tmp_path: Path) -> None:
    (tmp_path / "cluster_id").write_text("-bcdefghijklmnopqrstuv")
    tool = tmp_path / "java"
    tool.write_text(
        '#!/bin/sh\ncase " $* " in *" --cluster-id=-bcdefghijklmnopqrstuv "*) exit 0;; esac\nexit 1\n'
    )
    tool.chmod(0o755)
    prepare_storage(tmp_path, (str(tool),))
    assert (tmp_path / ".formatted").exists()


def test_a_log_folder_that_cannot_be_formatted_says_what_the_tool_said(tmp_path: Path) -> None:
    tool = tmp_path / "java"
    tool.write_text("#!/bin/sh\necho 'trouble' >&2\necho 'No space left on device' >&2\nexit 1\n")
    tool.chmod(0o755)
    with pytest.raises(SetupError, match="cannot be formatted: No space left on device"):
        prepare_storage(tmp_path, (str(tool),))
    assert not (tmp_path / ".formatted").exists()


def test_the_memory_of_flink_adds_up_and_every_port_is_its_own(tmp_path: Path) -> None:
    launch, ports = _described(flink.flink_part(), tmp_path)
    told = yaml.safe_load((tmp_path / "flink" / "conf" / "config.yaml").read_text())
    _, worker, *further = launch.programs
    heap = sum(
        int(told[f"taskmanager.memory.{kind}.heap.size"].removesuffix("m"))
        for kind in ("framework", "task")
    )
    assert f"-Xmx{heap}m" in worker.argv
    named = {name: int(value) for name, value in told.items() if str(value).isdigit()}
    chosen = [value for name, value in named.items() if name.endswith("port")]
    assert len(chosen) == 6
    own = [option for one in further for option in one.argv if ".port=" in option]
    assert len(set(own)) == 2 * len(further)
    assert {*chosen, *(int(o.rpartition("=")[2]) for o in own)} == set(ports.given.values())
    assert named["rest.port"] == named["rest.bind-port"]
    assert {told[name] for name in told if "bind-host" in name or "address" in name} == {
        "127.0.0.1"
    }
    assert launch.url == f"http://127.0.0.1:{told['rest.port']}"


def test_flink_keeps_checkpoints_below_its_home_and_gives_up_a_job_in_the_end(
    tmp_path: Path,
) -> None:
    _described(flink.flink_part(), tmp_path)
    told = yaml.safe_load((tmp_path / "flink" / "conf" / "config.yaml").read_text())
    assert told["execution.checkpointing.dir"] == f"file://{tmp_path}/flink/checkpoints"
    assert told["execution.checkpointing.savepoint-dir"] == f"file://{tmp_path}/flink/savepoints"
    assert (
        told["execution.checkpointing.externalized-checkpoint-retention"]
        == "RETAIN_ON_CANCELLATION"
    )
    assert told["taskmanager.numberOfTaskSlots"] == 8
    bounded = "restart-strategy.exponential-delay.attempts-before-reset-backoff"
    assert told[bounded] == 10


def test_flink_of_another_home_has_another_worker(tmp_path: Path) -> None:
    names = set()
    for home in ("one", "two"):
        _described(flink.flink_part(), tmp_path / home)
        told = yaml.safe_load((tmp_path / home / "flink" / "conf" / "config.yaml").read_text())
        names.add(told["taskmanager.resource-id"])
    assert len(names) == 2


def test_flink_has_a_taskmanager_for_each_eight_slots_that_are_asked_for(tmp_path: Path) -> None:
    launch, _ = _described(flink.flink_part(), tmp_path)
    assert _wanted(launch) == ["jobmanager", "taskmanager"]
    ask_for_slots(tmp_path, 9)
    assert _wanted(launch) == ["jobmanager", "taskmanager", "taskmanager-2"]
    ask_for_slots(tmp_path, 3)
    assert wanted_slots(tmp_path) == 9, "what runs is never taken away"
    ask_for_slots(tmp_path, 1_000)
    assert len(_wanted(launch)) == 1 + MOST_WORKERS


def _wanted(launch: Launch) -> list[str]:
    return [program.name for program in launch.programs if program.is_wanted()]


@pytest.fixture
def jobmanager() -> Iterator[tuple[str, int, list[str]]]:
    """A JobManager that lists the workers of a list; its port stands for the worker's."""
    workers: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            document: dict[str, Any] = {"taskmanagers": [{"id": one} for one in workers]}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with in_background(server):
        yield f"http://127.0.0.1:{server.server_port}", server.server_port, workers


def test_flink_is_ready_with_its_own_worker_alone(
    jobmanager: tuple[str, int, list[str]],
) -> None:
    url, port, workers = jobmanager
    assert flink.look(url, {"ours": port}).detail == "waiting for the TaskManager"
    workers.append("ours")
    assert flink.look(url, {"ours": port}).is_ready
    # One that was killed is listed for a while, but nobody listens there.
    assert flink.look(url, {"ours": 1}).detail == "waiting for the TaskManager"
    both = {"ours": port, "ours-2": port}
    assert not flink.look(url, both).is_ready
    workers.append("ours-2")
    assert flink.look(url, both).is_ready
    assert flink.look(url, {"ours": port}, known=["ours", "ours-2"]).is_ready
    workers.append("theirs")
    strange = flink.look(url, both)
    assert strange.is_broken
    assert strange.detail.endswith("joined it: theirs")
    assert flink.look("http://127.0.0.1:1", {"ours": port}).detail == "waiting for the JobManager"


def test_the_store_writes_a_log_and_drops_nothing(tmp_path: Path) -> None:
    launch, ports = _described(store_part(), tmp_path)
    (server,) = launch.programs
    told = dict(zip(server.argv[1::2], server.argv[2::2], strict=True))
    assert told["--appendonly"] == "yes"
    assert told["--appendfsync"] == "everysec"
    assert told["--save"] == ""
    assert told["--maxmemory-policy"] == "noeviction"
    assert told["--bind"] == "127.0.0.1"
    assert ports.fixed == {"valkey"}
    assert launch.url == "redis://127.0.0.1:20001/0"


def test_a_home_too_deep_for_a_socket_goes_without(tmp_path: Path) -> None:
    launch, _ = _described(store_part(), tmp_path / ("deep" * 30))
    assert "--unixsocket" not in launch.programs[0].argv


def test_our_own_programs_wait_for_what_they_work_on(tmp_path: Path) -> None:
    expected = {"writer": "store", "archive": "kafka", "server": "store"}
    for part in (writer_part(), archive_part(), server_part()):
        (program,) = _described(part, tmp_path)[0].programs
        assert program.starts_after is not None
        assert program.starts_after().detail == f"waiting for {expected[part.name]}"


def test_our_own_programs_wait_for_a_users_own_service_that_does_not_answer(
    tmp_path: Path,
) -> None:
    own = {"MILLRACE_STORE_URL": "redis://127.0.0.1:1/0", "MILLRACE_KAFKA": "127.0.0.1:1"}
    for part, detail in (
        (server_part(), "waiting for store to answer"),
        (archive_part(), "waiting for kafka to answer"),
    ):
        (program,) = _described(part, tmp_path, **own)[0].programs
        assert program.starts_after is not None
        assert program.starts_after().detail == detail


def test_a_writer_is_ready_after_its_own_first_round_not_one_of_before(tmp_path: Path) -> None:
    launch, _ = _described(writer_part(), tmp_path)
    done = tmp_path / "writer" / "ready"
    done.parent.mkdir()
    done.touch()
    assert launch.probe().is_ready
    (program,) = launch.programs
    assert program.prepare is not None
    program.prepare()
    assert launch.probe().detail == "in its first round"


def test_the_server_is_told_its_port(tmp_path: Path) -> None:
    launch, ports = _described(server_part(), tmp_path)
    (server,) = launch.programs
    assert server.env["MILLRACE_SERVER_PORT"] == str(ports.given["http"])
    assert launch.probe().detail == f"waiting for {launch.url}"


def test_only_settings_that_concern_a_part_restart_it() -> None:
    concerned = {part.name: part.variables for part in all_parts()}
    assert "MILLRACE_LAKE" not in concerned["kafka"]
    assert "MILLRACE_LAKE" in concerned["archive"]
    assert "MILLRACE_KAFKA" in concerned["writer"]
    assert "MILLRACE_STORE_URL" in concerned["server"]
    assert replace(store_part(), name="other").variables == ("MILLRACE_HOME",)
