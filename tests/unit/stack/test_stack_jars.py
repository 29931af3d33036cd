"""The jar cache, against a small repository of the test's own."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from millrace.errors import SetupError
from resources.jvm.jars import Jar, cached, read_lock
from stack.jars import ROOTS, fetch, write_lock
from tests.support.background_server import in_background

_CONTENT = b"not really a jar, but " * 5000
_SHA256 = hashlib.sha256(_CONTENT).hexdigest()
_JAR = Jar("org.example:thing:1.0", _SHA256, len(_CONTENT), "delta")


@dataclass
class Repository:
    """A Maven repository with one jar; it may send less than it promises, or something else."""

    url: str = ""
    content: bytes = _CONTENT
    cut_first_answers: int = 0
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def repository() -> Iterator[Repository]:
    served = Repository()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests.append(self.path)
            if "/empty/" in self.path:
                self.send_error(404)
                return
            cut = len(served.requests) <= served.cut_first_answers
            self.send_response(200)
            self.send_header("Content-Length", str(len(served.content)))
            self.end_headers()
            self.wfile.write(served.content[: 1000 if cut else None])

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}/maven"
    with in_background(server):
        yield served


def test_the_committed_lock_holds_what_every_engine_needs() -> None:
    for engine, roots in ROOTS.items():
        locked = [jar.coordinate for jar in read_lock(engine)]
        assert {root.coordinate for root in roots} <= set(locked)
        if not any(root.with_dependencies for root in roots):
            assert len(locked) == len(roots)
    assert {jar.engine for jar in read_lock()} == set(ROOTS)
    assert all(len(jar.sha256) == 64 and jar.size_bytes > 1000 for jar in read_lock())


def test_a_jar_that_is_not_in_the_cache_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"ecj-.*\.jar is not in the cache") as caught:
        cached(tmp_path, "build")
    assert caught.value.fix == "make setup"


def test_a_missing_jar_is_fetched_once_and_then_found(
    repository: Repository, tmp_path: Path
) -> None:
    seen: list[tuple[str, int, int]] = []
    (path,) = fetch(
        tmp_path, [_JAR], repository=repository.url, progress=lambda *step: seen.append(step)
    )
    assert path == tmp_path / "jars" / _JAR.sha256 / "thing-1.0.jar"
    assert path.read_bytes() == _CONTENT
    assert seen[-1] == ("thing-1.0.jar", len(_CONTENT), len(_CONTENT))
    fetch(tmp_path, [_JAR], repository=repository.url)
    assert repository.requests == ["/maven/org/example/thing/1.0/thing-1.0.jar"]


@pytest.mark.parametrize(
    "damaged", [_CONTENT[:-1], b"", b"X" + _CONTENT[1:]], ids=["cut", "empty", "altered"]
)
def test_a_damaged_file_in_the_cache_is_fetched_again(
    repository: Repository, tmp_path: Path, damaged: bytes
) -> None:
    path = _JAR.path_in(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(damaged)
    assert not _JAR.is_intact(tmp_path)
    fetch(tmp_path, [_JAR], repository=repository.url)
    assert path.read_bytes() == _CONTENT


def test_a_transfer_that_breaks_off_is_tried_again(repository: Repository, tmp_path: Path) -> None:
    repository.cut_first_answers = 2
    (path,) = fetch(tmp_path, [_JAR], repository=repository.url)
    assert path.read_bytes() == _CONTENT
    assert len(repository.requests) == 3


def test_other_bytes_than_the_lock_says_are_refused_and_not_kept(
    repository: Repository, tmp_path: Path
) -> None:
    repository.content = b"an altered jar"
    with pytest.raises(SetupError) as caught:
        fetch(tmp_path, [_JAR], repository=repository.url)
    assert "thing-1.0.jar has 14 bytes" in caught.value.what
    assert _JAR.sha256 in caught.value.what
    assert caught.value.where.endswith("/thing-1.0.jar")
    assert "damaged" in caught.value.fix
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"]


def test_without_a_network_the_error_says_what_where_and_how_to_mend(tmp_path: Path) -> None:
    with pytest.raises(SetupError) as caught:
        fetch(tmp_path, [_JAR], repository="http://127.0.0.1:9/maven")
    assert caught.value.what.startswith("cannot download thing-1.0.jar: ")
    assert caught.value.where == "http://127.0.0.1:9/maven/org/example/thing/1.0/thing-1.0.jar"
    assert str(_JAR.path_in(tmp_path)) in caught.value.fix


def test_a_jar_the_repository_does_not_have_is_asked_for_once(
    repository: Repository, tmp_path: Path
) -> None:
    absent = replace(_JAR, coordinate="org.example:other:1.0")
    with pytest.raises(SetupError, match=r"cannot download other-1\.0\.jar: Not Found"):
        fetch(tmp_path, [absent], repository=f"{repository.url}/empty")
    assert len(repository.requests) == 1


def test_several_at_once_download_a_jar_once(repository: Repository, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(fetch, tmp_path, [_JAR], repository=repository.url) for _ in range(8)]
        assert {run.result() for run in runs} == {(_JAR.path_in(tmp_path),)}
    assert len(repository.requests) == 1


def test_a_cache_that_cannot_be_made_is_named(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "jars").write_text("a file where a folder should be")
    with pytest.raises(SetupError, match="the cache cannot be written") as caught:
        fetch(tmp_path, [_JAR], repository=repository.url)
    assert "MILLRACE_CACHE" in caught.value.fix


def test_a_lock_is_written_from_what_the_repository_has(
    repository: Repository, tmp_path: Path
) -> None:
    lock = tmp_path / "jars.lock"

    def resolve(coordinate: str) -> list[str]:
        return [coordinate, "org.example:dependency:2.0"]

    write_lock(tmp_path, lock, repository=repository.url, resolve=resolve)
    jars = read_lock(path=lock)
    roots = {root.coordinate for all_of_one in ROOTS.values() for root in all_of_one}
    assert {jar.coordinate for jar in jars} == {*roots, "org.example:dependency:2.0"}
    assert [jar.name for jar in read_lock("kafka", path=lock)][1] == "dependency-2.0.jar"
    assert all(jar.sha256 == _JAR.sha256 and jar.is_intact(tmp_path) for jar in jars)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a jar lock"),
        (json.dumps({"format": 1, "jars": []}), "format 1, not 2"),
        (json.dumps({"format": 2, "jars": [{"coordinate": "a:b:c"}]}), "not a jar lock"),
        (
            json.dumps(
                {
                    "format": 2,
                    "jars": [{"coordinate": "ab", "sha256": "", "size_bytes": 1, "engine": "x"}],
                }
            ),
            "'ab' is not group:artifact:version",
        ),
    ],
)
def test_what_is_no_lock_is_refused(tmp_path: Path, text: str, message: str) -> None:
    lock = tmp_path / "jars.lock"
    lock.write_text(text)
    with pytest.raises(SetupError, match=message) as caught:
        read_lock(path=lock)
    assert caught.value.where == str(lock)
    assert "python -m stack.jars lock" in caught.value.fix
