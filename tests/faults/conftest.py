"""One stack for all tests that strike or change a live one; it is theirs alone."""

from collections.abc import Iterator

import pytest

from tests.support.live import views
from tests.support.live.running_stack import RunningStack


@pytest.fixture(scope="package")
def struck_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A whole stack without Spark, its three views deployed."""
    root = tmp_path_factory.mktemp("struck")
    declarations = {"payments": views.PAYMENTS, "pulses": views.PULSES}
    stack = RunningStack.declared(root, declarations)
    try:
        stack.up()
        stack.run("stream", "deploy", *views.VIEWS)
        # One topic is read by one task for one view and by three for another.
        stack.run("stream", "restart", "live_till", "--parallelism", "3")
        yield stack
    finally:
        stack.down()
