"""``python -m serving``: the online API, by default on port 8080 of 127.0.0.1.

Address and port are the settings ``server.host`` and ``server.port``; the store is ``store.url``, else
the one of this home's stack. What the user's own store asks for is read when the server starts.
"""

import logging
import sys
from functools import partial

from millrace.errors import PlatformError
from resources.endpoints import store_url
from resources.settings import settings_from_env
from serving.app import create_app
from serving.server import DrainingServer, configuration


def main() -> None:
    """Serve until stopped."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level="INFO")
    try:
        settings = settings_from_env()
        find = partial(store_url, settings)
        app = create_app(find if settings.store_url is None else find())
    except PlatformError as error:
        sys.exit(f"error: {error}")
    address = (settings.server_host, settings.server_port)
    fast_path = app.state.fast_path if settings.server_fastpath else None
    DrainingServer(configuration(app, *address, fast_path), app.state.gate).run()


if __name__ == "__main__":
    main()
