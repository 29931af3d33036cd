"""The settings' Kafka properties as Flink's connector takes them: by the Java client's names.

librdkafka and the Java client name the same things differently: a user and a password are a line of
JAAS there, certificates are text in place of files. Text has the further use that a Flink elsewhere
needs no files of this machine.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from millrace.errors import SetupError, nearest
from resources.configuration.secret import Options

_SHADED = "org.apache.flink.kafka.shaded.org.apache.kafka.common.security"
"""Where the connector's jar has the Java client's classes."""

_LOGIN = {
    "PLAIN": f"{_SHADED}.plain.PlainLoginModule",
    "SCRAM-SHA-256": f"{_SHADED}.scram.ScramLoginModule",
    "SCRAM-SHA-512": f"{_SHADED}.scram.ScramLoginModule",
}
_MECHANISM = ("sasl.mechanism", "sasl.mechanisms")
_LOGIN_NAMES = (*_MECHANISM, "sasl.username", "sasl.password")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_KEY = re.compile(
    r"-----BEGIN (ENCRYPTED )?PRIVATE KEY-----.*?-----END (ENCRYPTED )?PRIVATE KEY-----", re.DOTALL
)
_PREFIXES = ("security.", "sasl.", "ssl.", "enable.ssl.")
_OWN_KEY = "flink.kafka_properties"


def java_properties(properties: Options, own: Options) -> dict[str, str]:
    """Return what lets the Java client in where ``properties`` let librdkafka in.

    Only what is about security is carried over: batches and time-outs are each client's own.

    Args:
        properties: librdkafka's.
        own: the Java client's, which win.

    Raises:
        SetupError: a property has no counterpart, or a secret or file cannot be read.
    """
    given = {n: v for n, v in properties.reveal().items() if n.startswith(_PREFIXES)}
    further = own.reveal()
    found = dict(_login(given)) if "sasl.jaas.config" not in further else {}
    for name, value in given.items():
        if name not in _LOGIN_NAMES:
            found |= _translated(name, value)
    return found | further


def _login(given: Mapping[str, str]) -> Mapping[str, str]:
    mechanism = next((given[name] for name in _MECHANISM if name in given), None)
    if mechanism is None:
        return {}
    module = _LOGIN.get(mechanism.upper())
    if module is None:
        raise SetupError(
            f"Flink's connector cannot be told of the SASL mechanism {mechanism!r} from here",
            where="kafka.properties.sasl.mechanism",
            fix=f"{nearest(mechanism, list(_LOGIN))}; or write sasl.jaas.config and what belongs to "
            f"it in [{_OWN_KEY}]",
        )
    user, password = (_quoted(given.get(f"sasl.{name}", "")) for name in ("username", "password"))
    return {
        "sasl.mechanism": mechanism.upper(),
        "sasl.jaas.config": f"{module} required username={user} password={password};",
    }


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _translated(name: str, value: str) -> dict[str, str]:
    if name in _TRANSLATIONS:
        return _TRANSLATIONS[name](value)
    raise SetupError(
        f"Flink's connector has no counterpart of {name!r}",
        where=f"kafka.properties.{name}",
        fix=f"leave it out, or write what the Java client has instead in [{_OWN_KEY}]",
    )


def _protocol(value: str) -> dict[str, str]:
    return {"security.protocol": value.upper()}


def _authority(text: str) -> dict[str, str]:
    # A file may hold a key beside its certificates, which is nobody's over there.
    certificates = "\n".join(_CERTIFICATE.findall(text))
    return {"ssl.truststore.type": "PEM", "ssl.truststore.certificates": certificates}


def _certificate(text: str) -> dict[str, str]:
    chain = "\n".join(_CERTIFICATE.findall(text))
    return {"ssl.keystore.type": "PEM", "ssl.keystore.certificate.chain": chain}


def _key(text: str) -> dict[str, str]:
    found = _KEY.search(text)
    if found is None:
        raise SetupError(
            "the client's key is of a form that Java cannot read",
            where="kafka.properties.ssl.key",
            fix="openssl pkcs8 -topk8 -nocrypt -in key.pem -out key.pkcs8.pem",
        )
    return {"ssl.keystore.type": "PEM", "ssl.keystore.key": found[0]}


def _of_file(
    name: str, translate: Callable[[str], dict[str, str]]
) -> Callable[[str], dict[str, str]]:
    def read(path: str) -> dict[str, str]:
        if path == "probe":
            return {}
        try:
            return translate(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise SetupError(
                f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no PEM text'}",
                where=f"kafka.properties.{name}",
                fix="name a PEM file that this user can read",
            ) from error

    return read


def _hostname_check(value: str) -> dict[str, str]:
    return {"ssl.endpoint.identification.algorithm": "" if value == "none" else value}


def _verification(value: str) -> dict[str, str]:
    if value.lower() == "true":
        return {}
    raise SetupError(
        "the Java client of Flink's connector always checks the brokers' certificate",
        where="kafka.properties.enable.ssl.certificate.verification",
        fix="name the authority that signed it: ssl.ca.location",
    )


_TRANSLATIONS: Mapping[str, Callable[[str], dict[str, str]]] = {
    "security.protocol": _protocol,
    "ssl.ca.pem": _authority,
    "ssl.ca.location": _of_file("ssl.ca.location", _authority),
    "ssl.certificate.pem": _certificate,
    "ssl.certificate.location": _of_file("ssl.certificate.location", _certificate),
    "ssl.key.pem": _key,
    "ssl.key.location": _of_file("ssl.key.location", _key),
    "ssl.key.password": lambda value: {"ssl.key.password": value},
    "ssl.endpoint.identification.algorithm": _hostname_check,
    "enable.ssl.certificate.verification": _verification,
}


def with_access(script: str, placeholder: str, brokers: str, access: Mapping[str, str]) -> str:
    """Return a script of SQL with the brokers' address, and what they ask for, where it belongs.

    Args:
        script: has ``'properties.bootstrap.servers' = '<placeholder>'`` in each table's options.
        placeholder: what stands for the address.
        brokers: the address.
        access: the Java client's properties; they become further options beside the address.
    """
    options = [_literal(brokers)]
    options += [f"{_literal(f'properties.{n}')} = {_literal(v)}" for n, v in access.items()]
    return script.replace(_literal(placeholder), ",\n  ".join(options))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
