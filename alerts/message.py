"""What a sink says: one frozen text per transition, made when it is decided."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote

from alerts.conditions import Change, Transition
from alerts.facts import WHOLE, Severity, Story, Subject
from resources.documentation import page_url

TITLE_LENGTH = 140
"""Slack's headers take 150 characters, mail and pagers show fewer."""
SUMMARY_LENGTH = 800
_DETAIL_LENGTH = 300
_DETAILS = 12
_NAMED = 4
_MOST_FOLDED = 50
_OF_ASSETS = frozenset({"check", "partition", "days", "late"})
"""Kinds that are about an asset, and so link to its page."""
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
_SECRET = re.compile(
    r"(?i)\b(password|passwd|pwd|token|secret|api[_-]?key|authorization)(['\"]?\s*[=:]\s*)"
    r"(bearer\s+)?\S+"
)
_WORDS: Mapping[str, str] = {"opened": "FAILED", "still": "STILL FAILING", "resolved": "RESOLVED"}
_KIND_WORDS: Mapping[str, str] = {
    "partition": "build of",
    "days": "days of",
    "late": "late files of",
    "run": "run of",
    "stream": "stream",
    "tick": "tick of",
    "daemon": "Dagster daemon",
    "sink": "alert sink",
}

Batching = Literal["single", "digest", "page"]
"""How a sink wants a storm: as single messages all the same; as digests; or as one page for the
incidents that opened, which is resolved when the last of them is."""

Status = Change | Literal["heartbeat", "test"]


@dataclass(frozen=True)
class Message:
    """One transition as it is sent.

    Attributes:
        key: idempotency key, the same at every attempt.
        incident: the same for all transitions of an incident.
        status: what changed; ``heartbeat`` and ``test`` are about the alerts themselves.
        fingerprint: the condition it is about.
        details: short facts by name.
        links: URLs by text.
        folded: what else fails because of it, in words; the first of it.
        at_ms: when what is told was so, epoch milliseconds.
        opened_ms: when the incident began.
    """

    key: str
    incident: str
    status: Status
    kind: str
    name: str
    severity: Severity
    fingerprint: str
    title: str
    summary: str
    details: Mapping[str, str]
    owners: tuple[str, ...]
    links: Mapping[str, str]
    at_ms: int
    opened_ms: int
    folded: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values; ``from_json`` reads them."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Message":
        """Read what ``to_json`` wrote."""
        folded = tuple(document.get("folded", ()))
        return cls(**{**document, "owners": tuple(document["owners"]), "folded": folded})

    @property
    def at(self) -> str:
        """``at_ms`` as ISO text, UTC."""
        return iso(self.at_ms)

    @property
    def paragraph(self) -> str:
        """Title, summary, details and links as plain text."""
        lines = [self.title, self.summary]
        lines += [f"{name}: {value}" for name, value in self.details.items()]
        lines += [f"{text}: {url}" for text, url in self.links.items()]
        return "\n".join(line for line in lines if line)


@dataclass(frozen=True)
class Delivery:
    """What is sent at once: one message, or a digest of several.

    Attributes:
        key: idempotency key of the whole, the same at every attempt.
        messages: at least one, in the order decided.
        page: key of the delivery that opened what this one ends; empty if it ends no such page.
    """

    key: str
    messages: tuple[Message, ...]
    page: str = ""

    @property
    def is_digest(self) -> bool:
        """True for several at once."""
        return len(self.messages) > 1

    @property
    def title(self) -> str:
        """One line for all."""
        return digest_title(self.messages) if self.is_digest else self.messages[0].title


def digest_title(messages: Sequence[Message]) -> str:
    """Count a digest by what changed: ``25 alerts: 20 failed, 5 resolved``."""
    counts = {
        word.lower(): sum(message.status == status for message in messages)
        for status, word in _WORDS.items()
    }
    told = ", ".join(f"{n} {word}" for word, n in counts.items() if n)
    return f"{len(messages)} alerts: {told}"


@dataclass(frozen=True)
class Bases:
    """Where links begin; empty: there are none.

    Attributes:
        dagster: the webserver.
        docs: where the folder ``docs`` is served.
    """

    dagster: str = ""
    docs: str = ""


def message_of(transition: Transition, bases: Bases = Bases()) -> Message:
    """Write a transition down."""
    subject, story = transition.subject, transition.story
    word = _WORDS[transition.change]
    if transition.number > 1:
        word = f"{word} ({transition.number})"
    days = f", {story.days}" if story.days else ""
    details = {name: _cut(value, _DETAIL_LENGTH) for name, value in story.details.items()}
    if transition.change != "opened":
        details["failing since"] = iso(transition.incident.opened_ms)
    if transition.note:
        details["note"] = transition.note
    if transition.followers:
        details["folded"] = _folded_text(transition)
    return Message(
        key=transition.key,
        incident=transition.incident.id,
        status=transition.change,
        kind=subject.kind,
        name=subject.name,
        severity=transition.severity,
        fingerprint=f"{subject.key}|{transition.severity}",
        title=_cut(f"{word}: {subject_text(subject)}{days}", TITLE_LENGTH),
        summary=_cut(story.summary, SUMMARY_LENGTH),
        details=dict(list(details.items())[-_DETAILS:]),
        owners=story.owners,
        links=_links(subject, story, bases),
        at_ms=transition.at_ms,
        opened_ms=transition.incident.opened_ms,
        folded=tuple(subject_text(one) for one in transition.followers[:_MOST_FOLDED]),
    )


def _folded_text(transition: Transition) -> str:
    """Count what is folded and name the first of it; of a cause that healed, what is left."""
    names = [subject_text(one) for one in transition.followers]
    why = "still fail" if transition.change == "resolved" else "fail because of it"
    more = f"; and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    text = f"{len(names)} more {why}: {'; '.join(names[:_NAMED])}"
    return _cut(text, _DETAIL_LENGTH - len(more)) + more


def subject_text(subject: Subject) -> str:
    """Name a subject for a reader: ``check null_rate of events/payments, 2020-01-31``."""
    aspect = f" {subject.aspect}" if subject.aspect else ""
    where = f", {subject.partition}" if subject.partition != WHOLE else ""
    if subject.kind == "check":
        return f"check{aspect} of {subject.name}{where}"
    return f"{_KIND_WORDS[subject.kind]} {subject.name}{aspect}{where}"


def heartbeat_message(number: int, now_ms: int, summary: str) -> Message:
    """Return the sign of life of one period."""
    return _own_message(f"heartbeat:{number}", "heartbeat", now_ms, "Alerts are alive", summary)


def probe_message(key: str, now_ms: int, sink: str) -> Message:
    """Return what ``millrace alerts test`` sends."""
    return _own_message(
        key, "test", now_ms, f"Test of the sink {sink}", "If you read this, alerts arrive here."
    )


def _own_message(
    key: str, status: Literal["heartbeat", "test"], now_ms: int, title: str, summary: str
) -> Message:
    return Message(
        key=key,
        incident=key,
        status=status,
        kind="alerts",
        name="alerts",
        severity="warn",
        fingerprint=f"alerts|{status}",
        title=title,
        summary=summary,
        details={},
        owners=(),
        links={},
        at_ms=now_ms,
        opened_ms=now_ms,
    )


def redact(text: str) -> str:
    """Blot out what looks like a credential.

    >>> redact("redis://user:pw@host/0 refused, password=hunter2")
    'redis://***@host/0 refused, password=***'
    """
    return _SECRET.sub(r"\1\2***", _CREDENTIALS.sub("***@", text))


def iso(instant_ms: int) -> str:
    """Return an instant as ISO text, UTC, to the second."""
    at = datetime.fromtimestamp(instant_ms / 1000, tz=UTC)
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def _cut(text: str, length: int) -> str:
    clean = redact(text)
    return clean if len(clean) <= length else f"{clean[: length - 1]}…"


def _links(subject: Subject, story: Story, bases: Bases) -> dict[str, str]:
    links: dict[str, str] = {}
    base = bases.dagster
    if base and story.run_id:
        links["run"] = f"{base}/runs/{story.run_id}"
    if base and subject.kind in _OF_ASSETS:
        page = f"{base}/assets/{'/'.join(map(_quoted, subject.name.split('/')))}"
        if subject.kind == "check":
            links["check"] = f"{page}?view=checks&checkDetail={_quoted(subject.aspect)}"
        if subject.partition != WHOLE:
            links["partition"] = f"{page}?view=partitions&partition={_quoted(subject.partition)}"
        elif subject.kind != "check":
            links["partitions"] = f"{page}?view=partitions"
    if story.runbook:
        links["runbook"] = page_url(story.runbook, bases.docs)
    return links


def _quoted(text: str) -> str:
    return quote(text, safe="")
