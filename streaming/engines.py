"""The doors that acting on a stream goes through, gathered so that tests can stand in for each."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from millrace.errors import PlatformError
from resources.endpoints import flink_url, kafka_bootstrap, store_url
from resources.kafka.brokers import Brokers
from resources.settings import Settings

if TYPE_CHECKING:
    from resources.flink.rest import CheckpointReport, JobReport, Slots
    from resources.kafka.client import Topic
    from resources.store.online import OnlineStore


class Flink(Protocol):
    """What is asked of a Flink cluster; ``resources.flink.rest.FlinkCluster`` is the real one."""

    def slots(self) -> "Slots":
        """Return how many slots there are, and are free."""
        ...

    def ensure_jar(self, path: Path) -> str:
        """Return the id under which Flink holds the jar; uploaded once."""
        ...

    def run(
        self,
        jar_id: str,
        script: str,
        job_id: str,
        configuration: Mapping[str, str],
        parallelism: int,
        restore_from: str | None = None,
    ) -> str:
        """Submit a job; one that Flink knows under this id already is left as it is."""
        ...

    def job(self, job_id: str) -> "JobReport | None":
        """Return a job's state; None if Flink does not know it."""
        ...

    def jobs(self) -> "list[JobReport]":
        """Return all jobs that Flink knows, also those that ended."""
        ...

    def cancel(self, job_id: str) -> None:
        """Cancel a job; its retained checkpoints stay."""
        ...

    def stop_with_savepoint(self, job_id: str) -> str:
        """Stop a job; returns where its state lies, once it has ended."""
        ...

    def checkpoints(self, job_id: str) -> "CheckpointReport":
        """Return what Flink says of a job's checkpoints."""
        ...

    def exceptions(self, job_id: str) -> str | None:
        """Return the root cause of a job's last failure."""
        ...


@dataclass(frozen=True)
class Engines:
    """Flink, Kafka, the store and the runner jar of one stack; opened when first asked for."""

    settings: Settings

    @property
    def flink(self) -> Flink:
        """The Flink cluster, where it is now: a stack that was restarted may have moved it.

        Raises:
            EngineUnavailable: it does not run.
        """
        from resources.flink.rest import FlinkCluster

        return FlinkCluster(flink_url(self.settings))

    def now_ms(self) -> int:
        """Return the present instant, epoch milliseconds."""
        return int(datetime.now(tz=UTC).timestamp() * 1000)

    @property
    def brokers(self) -> Brokers:
        """Kafka's ``host:port`` list, and what it asks for.

        Raises:
            EngineUnavailable: it does not run.
        """
        return kafka_bootstrap(self.settings)

    def on_brokers(self, script: str, placeholder: str) -> str:
        """Return a job's SQL with Kafka's address, and what it asks for, for the placeholder.

        The result holds secrets: it is for Flink alone.

        Raises:
            EngineUnavailable: Kafka does not run, or the vault does not answer.
            SetupError: Flink's connector cannot be told what Kafka asks for.
        """
        from resources.flink.kafka_properties import with_access

        return with_access(script, placeholder, self.brokers, self._java_access())

    def without_secrets(self, text: str) -> str:
        """Return a message of Flink's with the secrets masked that a job's SQL told it."""
        from resources.configuration.secret import is_secret_name, redacted

        try:
            own = (self.brokers.properties, self.settings.flink_kafka_properties)
            secrets = [secret for options in own for secret in options.secrets()]
            secrets += [v for name, v in self._java_access().items() if is_secret_name(name)]
        except PlatformError as error:
            return f"what Flink says may hold a secret, which cannot be read now ({error.what})"
        return redacted(text, secrets)

    def _java_access(self) -> dict[str, str]:
        from resources.flink.kafka_properties import java_properties

        return java_properties(self.brokers.properties, self.settings.flink_kafka_properties)

    @property
    def checkpoints(self) -> Path:
        """The folder of all checkpoints, one below it per job id."""
        return self.settings.home / "flink" / "checkpoints"

    def runner_jar(self) -> Path:
        """Return the jar with the SQL runner and its functions, built if need be."""
        from streaming.runner.build import ensure_runner_jar

        return ensure_runner_jar(self.settings)

    def ensure_topics(self, topics: "Sequence[Topic]") -> None:
        """Create the topics that do not exist."""
        from resources.kafka import client as kafka

        kafka.ensure_topics(self.brokers, list(topics))

    def delete_topics(self, names: Sequence[str]) -> None:
        """Delete topics; one that is not there is fine."""
        from resources.kafka import client as kafka

        kafka.delete_topics(self.brokers, list(names))

    def begin_offsets(self, topic: str) -> Mapping[int, int]:
        """Return the first offset that each partition still has."""
        from resources.kafka import client as kafka

        return kafka.begin_offsets(self.brokers, topic)

    def end_offsets(self, topic: str) -> Mapping[int, int]:
        """Return the next offset of each partition."""
        from resources.kafka import client as kafka

        return kafka.end_offsets(self.brokers, topic)

    def committed_offsets(self, group: str, topic: str) -> Mapping[int, int]:
        """Return how far a group has come, where it has committed anything."""
        from resources.kafka import client as kafka

        return kafka.committed_offsets(self.brokers, group, topic)

    @contextmanager
    def store(self) -> Iterator["OnlineStore"]:
        """Connect to the online store.

        Raises:
            PlatformError: it does not run or does not answer.
        """
        from resources.store.opening import open_online_store

        store = open_online_store(store_url(self.settings))
        try:
            yield store
        finally:
            store.close()
