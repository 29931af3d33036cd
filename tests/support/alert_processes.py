"""The three processes of alerts, each to be killed at any moment: ``python -m`` with its name.

``sink PORT FILE`` is a webhook that writes every message to a file before it answers; ``watch`` and
``deliver`` do without Dagster's daemon what the sensor and its job do, over the instance in
``DAGSTER_HOME`` and the database in ``MILLRACE_HOME``. Their clock runs ``SPEED`` times as fast, so
that pauses and leases pass quickly.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from resources.settings import settings_from_env

SPEED = 20
START = "ALERT_TEST_START_S"
"""The variable with the second at which the clock was a day behind the real one."""

_LOOK_S = 0.1
_DAY_S = 86_400


def now_ms() -> int:
    """Return the instant of a fast clock that stays behind the one which stamps runs."""
    start_s = float(os.environ[START])
    return int((start_s - _DAY_S + (time.time() - start_s) * SPEED) * 1000)


def sink(port: int, file: Path) -> None:
    """Take messages; one that was written but not answered will come again."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            lines = [
                json.dumps([one["key"], one["fingerprint"], one["status"]])
                for one in body["messages"]
            ]
            with file.open("a", encoding="utf-8") as out:
                out.write("".join(f"{line}\n" for line in lines))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    HTTPServer.allow_reuse_address = True
    HTTPServer(("127.0.0.1", port), Handler).serve_forever()


def watch() -> None:
    """Look for ever."""
    import dagster as dg

    from jobs.alerts.sensor import Look
    from streaming.engines import Engines

    class Fast(Engines):
        def now_ms(self) -> int:
            return now_ms()

    engines = Fast(settings_from_env())
    with dg.DagsterInstance.get() as instance:
        while True:
            Look(engines, instance).tick()
            time.sleep(_LOOK_S)


def deliver() -> None:
    """Send what is due, for ever."""
    from alerts.configuration import load_config
    from alerts.delivery import deliver
    from alerts.outbox import Outbox
    from alerts.state import AlertStore

    settings = settings_from_env()
    with AlertStore.open(settings) as store:
        while True:
            deliver(Outbox(store.engine), load_config(settings), clock=now_ms)
            time.sleep(_LOOK_S)


if __name__ == "__main__":
    if sys.argv[1] == "sink":
        sink(int(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1] == "watch":
        watch()
    elif sys.argv[1] == "deliver":
        deliver()
    else:
        sys.exit(os.EX_USAGE)
