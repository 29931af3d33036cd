"""What the code location knows of the subjects of alerts: owners, tags, and whether they exist."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import dagster as dg

from alerts.conditions import Condition
from alerts.facts import Fact, Subject
from jobs.alerts.runs import responsible
from millrace.plan import Plan
from resources.dagster.asset_keys import asset_path, declared_name

_OF_ASSETS = frozenset({"check", "partition", "days", "late"})
"""Kinds whose subject is named as its asset is."""


@dataclass(frozen=True)
class Declared:
    """Everything an alert can be about, as far as it is declared.

    Attributes:
        repository: the loaded code location; None: then nothing counts as removed.
        plan: the declarations as they are on disk now.
        is_complete: every declaration could be read.
        streams: views whose stream was deployed; None if that is not known.
        sinks: configured sinks.
    """

    repository: dg.RepositoryDefinition | None
    plan: Plan
    is_complete: bool
    streams: Collection[str] | None
    sinks: Collection[str]

    def told(self, fact: Fact) -> Fact:
        """Return a fact with the owners and tags of the assets it is about."""
        graph = None if self.repository is None else self.repository.asset_graph
        if graph is None or fact.is_ok:
            return fact
        owners, tags = list(fact.story.owners), dict(fact.story.tags)
        more, runbook = self._of_check(fact.subject)
        owners += more
        for name in dict.fromkeys(_assets(fact.subject, fact.awaits)):
            key = dg.AssetKey.from_user_string(name)
            if graph.has(key):
                node = graph.get(key)
                owners += [*node.owners, str(node.metadata.get("owner") or "")]
                tags = {**node.tags, **tags}
        kept = tuple(dict.fromkeys(owner for owner in owners if owner))
        runbook = fact.story.runbook or runbook
        return replace(fact, story=replace(fact.story, owners=kept, tags=tags, runbook=runbook))

    def _of_check(self, subject: Subject) -> tuple[tuple[str, ...], str]:
        """Return the owners and the runbook that a check is declared with."""
        if self.repository is None or subject.kind != "check":
            return (), ""
        graph = self.repository.asset_graph
        key = dg.AssetCheckKey(dg.AssetKey.from_user_string(subject.name), subject.aspect)
        if key not in graph.asset_check_keys:
            return (), ""
        return responsible(graph.get_check_spec(key).metadata or {})

    def gone(self, conditions: Mapping[str, Condition]) -> list[str]:
        """Return the fingerprints of open conditions whose subject is declared no more.

        A declaration that cannot be read now, or that the code server has not loaded yet, removes
        nothing.
        """
        return [name for name, one in conditions.items() if self._is_gone(one)]

    def _is_gone(self, condition: Condition) -> bool:
        subject = condition.subject
        if subject.kind == "sink":
            return subject.name not in self.sinks
        if subject.kind == "stream":
            return self.streams is not None and subject.name not in self.streams
        if self.repository is None or not self.is_complete:
            return False
        if subject.kind == "tick":
            names = {one.name for one in self.repository.schedule_defs}
            return subject.name not in names | {one.name for one in self.repository.sensor_defs}
        incident = condition.open_incident
        awaits = () if incident is None else incident.awaits
        about = [subject] if subject.kind != "run" else [Subject.parse(key) for key in awaits]
        return bool(about) and all(self._is_removed(one) for one in about)

    def _is_removed(self, subject: Subject) -> bool:
        if self.repository is None or subject.kind not in _OF_ASSETS:
            return False
        graph, key = self.repository.asset_graph, dg.AssetKey.from_user_string(subject.name)
        if not graph.has(key):
            name = declared_name(key.path)
            # The name of an asset before its last part said what it is; the new one has its own.
            is_former = key.path != list(asset_path(key.path[0], name))
            return is_former or (name not in self.plan.views and name not in self.plan.sources)
        is_check = subject.kind == "check"
        return is_check and dg.AssetCheckKey(key, subject.aspect) not in graph.asset_check_keys


def _assets(subject: Subject, awaits: Iterable[str]) -> list[str]:
    if subject.kind in _OF_ASSETS:
        return [subject.name]
    return [Subject.parse(key).name for key in awaits]
