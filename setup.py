"""The compiled part of rmiseg; everything else stands in pyproject.toml.

The environment variable RMISEG_NATIVE says what happens to it: "auto" (the default) builds it and goes on without it
where there is no C++ compiler, "require" fails there, as wheels of a release must, and "none" makes a wheel for any
machine. On Windows the compiler is GCC, called g++ or what CXX says: Microsoft's has no vectors of the kind used here.
"""

import os
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = "src/rmiseg/kernels/native"
CHOICES = ("auto", "require", "none")
PLATFORM = sysconfig.get_platform()
IS_WINDOWS = PLATFORM == "win-amd64"

native = os.environ.get("RMISEG_NATIVE", "auto")
if native not in CHOICES:
    raise SystemExit(f"RMISEG_NATIVE is {native!r}, which is none of {', '.join(CHOICES)}")


# No Python and no PyTorch inside: one binary for all their versions. Without it rmiseg.kernels.chunked takes its place.
def library(name: str, *flags: str) -> Extension:
    return Extension(
        f"rmiseg.kernels.native.{name}",
        sources=[f"{SOURCES}/{name}.cpp" for name in ("labels", "loss", "pixels", "regions", "threads")],
        depends=[
            f"{SOURCES}/{name}.h"
            for name in ("common", "copies", "covariance", "gradient", "interface", "maps", "matrices", "plan", "rows")
        ],
        language="c++",
        extra_compile_args=["-std=c++17", "-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", *flags],
        py_limited_api=True,
        optional=native == "auto",
    )


class BuildLibrary(build_ext):
    """Builds a library for Windows in one call of GCC; setuptools would have it export a Python module."""

    # The runtime libraries go inside. The stack is aligned to 16 bytes there, and GCC moves longer vectors as if it had
    # more (its bug 54412); the assembler makes those moves unaligned ones.
    FLAGS = ("-shared", "-static", "-s", "-Wa,-muse-unaligned-vector-move")

    def build_extension(self, ext: Extension) -> None:
        if not IS_WINDOWS:
            return super().build_extension(ext)
        path = Path(self.get_ext_fullpath(ext.name))
        path.parent.mkdir(parents=True, exist_ok=True)
        compiler = os.environ.get("CXX", "g++")
        return self.spawn([compiler, *ext.extra_compile_args, *self.FLAGS, *ext.sources, "-o", str(path)])


libraries = [library("_library")]
if PLATFORM.endswith(("x86_64", "amd64")):  # of which library.py chooses the best that the machine can run
    libraries += [library(f"_library_{level}", f"-march=x86-64-{level}") for level in ("v3", "v4")]
setup(
    cmdclass={"build_ext": BuildLibrary},
    ext_modules=[] if native == "none" else libraries,
    options={} if native == "none" else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
