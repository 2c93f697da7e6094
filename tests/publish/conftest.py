"""The Hub on this machine, for tests of publishing to it; and waits that take no time."""

from tests.hubserver.conftest import server, sleeps

__all__ = ["server", "sleeps"]
