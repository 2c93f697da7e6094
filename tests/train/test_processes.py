"""Jobs in processes of their own: answers in their order, errors as answers, and a killed process is a sentence."""

import os
import signal
import time

from prisma.errors import PrismaError
from prisma.recipes import recipe
from prisma.train.processes import at_once, in_processes


def answer(job: int) -> int:
    """Of a module, so that another process can find it."""
    if job == 3:
        raise PrismaError("expected another job; found 3")
    if job == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05 * (5 - job))  # the first takes longest
    return job * job


def test_answers_come_in_the_order_of_the_jobs() -> None:
    found = in_processes(answer, [0, 1, 2, 3, 4, 5], 3, lambda job: PrismaError(f"job {job} was killed"))
    words = [str(one) if isinstance(one, PrismaError) else one for one in found]
    assert words == [0, 1, 4, "expected another job; found 3", "job 4 was killed", 25]


def test_as_many_at_once_as_cores_have_threads_for() -> None:
    cores = os.cpu_count() or 1
    assert at_once(recipe("circle")) == cores
    assert at_once(recipe("circle").override({"threads": str(2 * cores)})) == 1
