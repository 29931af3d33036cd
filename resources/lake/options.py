"""How the lake's object store is opened: one set of options for delta-rs and for Spark.

They are written by delta-rs's names. Spark's Hadoop client knows the same things of S3 by others; what
begins with ``fs.`` is Hadoop's own and goes to Spark alone.
"""

from collections.abc import Callable, Mapping

from resources.settings import Settings

_HADOOP = "fs."


def storage_options(settings: Settings) -> dict[str, str] | None:
    """Return the options for delta-rs; None where there are none, and it asks the environment.

    Raises:
        SetupError: a secret cannot be read.
        EngineUnavailable: the vault does not answer.
    """
    given = settings.lake_options.reveal()
    return {name: v for name, v in given.items() if not name.startswith(_HADOOP)} or None


def hadoop_options(given: Mapping[str, str]) -> dict[str, str]:
    """Return options as Spark's Hadoop client takes them; what it has no name for is left out.

    Args:
        given: delta-rs's options, and Hadoop's own, which win.

    >>> hadoop_options({"AWS_REGION": "eu-central-1", "aws_allow_http": "true", "fs.s3a.a": "b"})
    {'fs.s3a.endpoint.region': 'eu-central-1', 'fs.s3a.connection.ssl.enabled': 'false', 'fs.s3a.a': 'b'}
    """
    found = {}
    for name, value in given.items():
        if translate := _S3A.get(name.lower().removeprefix("aws_")):
            option, of = translate
            found[option] = of(value)
    return found | {name: v for name, v in given.items() if name.startswith(_HADOOP)}


def _same(value: str) -> str:
    return value


def _opposite(value: str) -> str:
    return "false" if value.lower() in {"true", "1"} else "true"


_S3A: Mapping[str, tuple[str, Callable[[str], str]]] = {
    "access_key_id": ("fs.s3a.access.key", _same),
    "secret_access_key": ("fs.s3a.secret.key", _same),
    "session_token": ("fs.s3a.session.token", _same),
    "endpoint": ("fs.s3a.endpoint", _same),
    "endpoint_url": ("fs.s3a.endpoint", _same),
    "region": ("fs.s3a.endpoint.region", _same),
    "default_region": ("fs.s3a.endpoint.region", _same),
    "allow_http": ("fs.s3a.connection.ssl.enabled", _opposite),
    "virtual_hosted_style_request": ("fs.s3a.path.style.access", _opposite),
}
