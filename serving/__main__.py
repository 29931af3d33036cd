"""``python -m serving``: the online API on 127.0.0.1.

The port is ``MILLRACE_SERVER_PORT`` (8080), the address ``MILLRACE_SERVER_HOST``; the store is
``MILLRACE_STORE_URL``, else the one of this home's stack.
"""

import logging
import os
import sys
from functools import partial

from millrace.errors import PlatformError, SetupError
from resources.endpoints import store_url
from resources.settings import settings_from_env
from serving.app import create_app
from serving.server import DrainingServer, configuration

_DEFAULT_PORT = "8080"
_MOST_PORT = 65_535


def main() -> None:
    """Serve until stopped."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level="INFO")
    try:
        port = _port(os.environ.get("MILLRACE_SERVER_PORT") or _DEFAULT_PORT)
        settings = settings_from_env()
        app = create_app(settings.store_url or partial(store_url, settings))
    except PlatformError as error:
        sys.exit(f"error: {error}")
    host = os.environ.get("MILLRACE_SERVER_HOST") or "127.0.0.1"
    DrainingServer(configuration(app, host, port), app.state.gate).run()


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _MOST_PORT:
        raise SetupError(
            f"MILLRACE_SERVER_PORT is {text!r}", where="environment", fix="give a free port"
        )
    return int(text)


if __name__ == "__main__":
    main()
