"""The code that runs in a Space: this installation's, as files, and the packages that it needs, in these versions.

Prisma is not on PyPI, and a Space installs `requirements.txt` before the other files of its repository are there, so
that a wheel beside it could not be installed. So the packages `prisma` and `prisma_app` lie as they are beside
`app.py`, from where Python imports them: what runs is what made the Space, and anyone can read it there.
"""

import os
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path

from prisma.errors import PrismaError

PACKAGES = ("prisma", "prisma_app")
ENDINGS = frozenset({".py", ".js", ".css", ".html", ".md", ".json", ".typed"})
LEFT_OUT = ("prisma/mice/", "prisma/language/mice/")  # mice in the package: a Space shows published ones
GRADIO = "gradio"
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
ZERO_PREFIX = "zero-"  # of the names of ZeroGPU hardware
ZERO_TORCH = ("2.9.1", "2.10.0", "2.11.0")  # the versions that ZeroGPU's page lists and that Prisma supports
ZERO_PYTHON = "3.12.12"  # likewise
APP = '''"""What a Hugging Face Space starts: Prisma's app over the models that space.json lists."""

from pathlib import Path

from prisma_app.space import start

if __name__ == "__main__":
    start(Path(__file__).parent)
'''


def package_files() -> Iterator[tuple[str, Path]]:
    """Name -> file, of all code of this installation. Links are refused, and so is nothing else: it is left out.

    Raises:
        PrismaError: a package is not installed as files, or one of its files is a link.
    """
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise PrismaError(f"expected the package {package} as a folder of files; found none")
        top = Path(next(iter(spec.submodule_search_locations)))
        for folder, folders, names in os.walk(top):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            for path in (Path(folder) / name for name in sorted(names)):
                name = f"{package}/{path.relative_to(top).as_posix()}"
                if path.suffix not in ENDINGS or path.name.startswith(".") or name.startswith(LEFT_OUT):
                    continue
                if path.is_symlink() or Path(folder).is_symlink():
                    raise PrismaError(f"expected files in the package {package}; found a link, {path}")
                yield name, path
    yield from _licence()


def _licence() -> Iterator[tuple[str, Path]]:
    for file in _distribution().files or ():
        if file.name == "LICENSE":
            yield "LICENSE", Path(str(file.locate()))
            return


def requirements(hardware: str | None) -> str:
    """The text of `requirements.txt`: what the app needs, in the versions that are installed here.

    Gradio is left out: the Space installs it, by `sdk_version`. Torch is the one for CPUs, which is smaller and on
    which the app computes; on ZeroGPU it is a version that the hardware supports.
    """
    on_zero = is_zero(hardware)
    names = sorted({_name(line) for line in _distribution().requires or () if _is_needed(line)} - {GRADIO})
    versions = {name: installed(name) for name in names}
    if on_zero and versions["torch"] not in ZERO_TORCH:
        versions["torch"] = ZERO_TORCH[-1]
    head = "" if on_zero else f"--extra-index-url {CPU_WHEELS}\n"
    return head + "".join(f"{name}=={number}\n" for name, number in versions.items())


def python_version(hardware: str | None) -> str:
    """The version of Python for a Space: the one that runs here, or that of ZeroGPU."""
    return ZERO_PYTHON if is_zero(hardware) else f"{sys.version_info.major}.{sys.version_info.minor}"


def is_zero(hardware: str | None) -> bool:
    """Whether hardware is ZeroGPU."""
    return (hardware or "").startswith(ZERO_PREFIX)


def installed(name: str) -> str:
    """The version of an installed package, without the part that names a local build."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        raise PrismaError(
            f"expected the package {name}, which the app needs; found none: install it with "
            "pip install 'prisma-vit[app]'"
        ) from None


def _distribution():  # type: ignore[no-untyped-def]
    try:
        return distribution("prisma-vit")
    except PackageNotFoundError:
        raise PrismaError("expected an installed prisma-vit; found its files alone: install it with pip") from None


def _is_needed(line: str) -> bool:
    """Whether a requirement of this package is one of the library or of its extra `app`."""
    return "extra ==" not in line or re.search(r"extra == ['\"]app['\"]", line) is not None


def _name(line: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", line)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match[0]).lower()
