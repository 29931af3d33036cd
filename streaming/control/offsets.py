"""How far a stream's job has surely come in its topic."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resources.flink.rest import CheckpointReport
    from streaming.engines import Engines
    from streaming.publications.records import StreamRecord


def read_offsets(
    engines: "Engines", record: "StreamRecord", checkpoints: "CheckpointReport | None"
) -> Mapping[int, int]:
    """Return how far the job has surely come, by partition.

    The group's offsets are of this job only once it has completed a checkpoint; a job that began
    at the topic's beginning must not be credited with what its forerunner had read.

    Raises:
        EngineError: Kafka does not answer, or the topic is gone.
    """
    is_its_own = checkpoints is not None and checkpoints.completed > 0
    if is_its_own or record.restored_from is not None:
        return engines.committed_offsets(record.flink_group, record.source_topic)
    return engines.begin_offsets(record.source_topic)


def lag_events(
    engines: "Engines", record: "StreamRecord", checkpoints: "CheckpointReport | None"
) -> int:
    """Return how many events of the source's topic the job has not surely counted.

    Offsets are committed with each checkpoint, so up to ten seconds of traffic are in it; zero
    means that everything is counted.

    Raises:
        EngineError: Kafka does not answer, or the topic is gone.
    """
    read = read_offsets(engines, record, checkpoints)
    begins = engines.begin_offsets(record.source_topic)
    ends = engines.end_offsets(record.source_topic)
    return sum(max(end - max(read.get(p, 0), begins.get(p, 0)), 0) for p, end in ends.items())
