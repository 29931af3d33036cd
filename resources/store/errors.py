"""How the online store fails, beside refusing with a ``StoreError``."""

from millrace.errors import PlatformError, StoreError


class StoreUnavailable(StoreError):
    """The store does not answer, or cannot yet; the same call may succeed later."""

    code = "store_unavailable"
    retryable = True


class StoreMoved(StoreError):
    """The store does not stand where the writer left it: its markers must be read again."""

    code = "store_moved"


class Superseded(PlatformError):
    """A newer writer has taken over the partitions; this one must leave."""

    code = "superseded"

    @classmethod
    def on(cls, topic: str) -> "Superseded":
        """Return the error of a writer of a tile topic."""
        return cls(
            "a newer writer has taken over the tiles of this topic",
            where=topic,
            fix="let one writer run for each store; stop this one",
        )
