"""``python -m streaming.writer``: the writer of one stack, until SIGTERM."""

import logging
import signal
import sys
from collections.abc import Callable
from threading import Event
from types import FrameType

from millrace.errors import EngineUnavailable, PlatformError
from resources.endpoints import kafka_bootstrap, store_url
from resources.settings import Settings, settings_from_env
from resources.store.opening import open_online_store
from streaming.writer.loop import Writer
from streaming.writer.presence import Presence

logger = logging.getLogger("streaming.writer")

_WAIT_S = 0.5


def main() -> int:
    """Run the writer; returns the exit code."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    settings, stop = settings_from_env(), Event()

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    presence = Presence(settings.home / "writer")
    try:
        store = _when_known(store_url, settings, presence, stop)
        brokers = _when_known(kafka_bootstrap, settings, presence, stop)
        if store is not None and brokers is not None:
            Writer(open_online_store(store), brokers, presence).run(stop)
    except PlatformError as error:
        logger.error("%s", error)  # noqa: TRY400 - the message is written for its reader
        return 1
    return 0


def _when_known(
    find: Callable[[Settings], str], settings: Settings, presence: Presence, stop: Event
) -> str | None:
    """Wait until a part of the stack has an address; None if asked to stop meanwhile."""
    while not stop.is_set():
        presence.beat()
        try:
            return find(settings)
        except EngineUnavailable as error:
            logger.info("waits: %s", error.what)
            stop.wait(_WAIT_S)
    return None


if __name__ == "__main__":
    sys.exit(main())
