"""The kinds of sinks: what each is configured with, and how each is made."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from alerts.sinks import email, file, pagerduty, slack, stdout, webhook
from alerts.sinks.sink import Field, Options, Sink


@dataclass(frozen=True)
class SinkKind:
    """One ``type:`` of sink."""

    fields: Mapping[str, Field]
    build: Callable[[Options], Sink]


SINK_KINDS: Mapping[str, SinkKind] = MappingProxyType(
    {
        "slack": SinkKind(slack.FIELDS, slack.build),
        "pagerduty": SinkKind(pagerduty.FIELDS, pagerduty.build),
        "email": SinkKind(email.FIELDS, email.build),
        "webhook": SinkKind(webhook.FIELDS, webhook.build),
        "file": SinkKind(file.FIELDS, file.build),
        "stdout": SinkKind(stdout.FIELDS, stdout.build),
    }
)
