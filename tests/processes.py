"""Processes for a test to kill.

They are forked by a server that has loaded what they need and has no other threads: a fork of the test process itself,
beside the threads of torch, Gradio and a browser, can stop for ever.
"""

import multiprocessing
from multiprocessing.context import ForkServerContext, ForkServerProcess

PRELOADED = [
    "torch._dynamo",  # every optimiser imports it: three seconds in each process
    "prisma.train.loop",
    "prisma.cli.mice",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "prisma.publish",
    "sklearn.datasets",
    "sklearn.model_selection",
    "huggingface_hub.constants",
    "huggingface_hub.file_download",
    "huggingface_hub.hf_api",
    "tests.conftest",  # its `os.fsync`
    "tests.hubserver.running",
    "tests.publish.small_plans",
    "pytest",
]


def context() -> ForkServerContext:
    """Where processes and the events between them are made."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(PRELOADED)
    return made


def ended(process: ForkServerProcess) -> int:
    """Its exit code, once it has ended."""
    process.join(timeout=120)
    assert process.exitcode is not None, "it did not end"
    return process.exitcode
