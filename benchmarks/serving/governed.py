"""The server with a stub of access, for the benchmark: a token, and one masked column.

MILLRACE_STORE_URL=… MILLRACE_SERVER_PORT=… python -m benchmarks.serving.governed
"""

from hashlib import blake2b
from typing import Any

from millrace.errors import SetupError
from resources.settings import settings_from_env
from serving.access import Decision
from serving.app import create_app
from serving.errors import BadRequest
from serving.server import DrainingServer, configuration

TOKEN = "authorization: Bearer benchmark"  # noqa: S105
_GIVEN = TOKEN.partition(": ")[2].encode()


def _token(value: Any) -> str:
    return blake2b(value.encode(), key=b"of the benchmark", digest_size=8).hexdigest()


_CLERK = Decision("clerk", {("customer_payments", "channel_last"): _token})


def access(authorization: bytes | None) -> Decision:
    """Let the benchmark in, and hide a column from it."""
    if authorization != _GIVEN:
        raise BadRequest("no token, or another one", where="authorization", fix="send the token")
    return _CLERK


def main() -> None:
    """Serve until stopped."""
    settings = settings_from_env()
    if settings.store_url is None:
        raise SetupError("no store is named", where="MILLRACE_STORE_URL", fix="name one")
    app = create_app(settings.store_url, access=access)
    address = (settings.server_host, settings.server_port)
    config = configuration(app, *address, app.state.fast_path)
    DrainingServer(config, app.state.gate).run()


if __name__ == "__main__":
    main()
