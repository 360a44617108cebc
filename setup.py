"""The compiled part of rmiseg; everything else stands in pyproject.toml.

The environment variable RMISEG_NATIVE says what happens to it: "auto" (the default) builds it and goes on without it
where there is no C++ compiler, "require" fails there, as wheels of a release must, and "none" makes a wheel for any
machine.
"""

import os

from setuptools import Extension, setup

SOURCES = "src/rmiseg/kernels/native"
CHOICES = ("auto", "require", "none")

native = os.environ.get("RMISEG_NATIVE", "auto")
if native not in CHOICES:
    raise SystemExit(f"RMISEG_NATIVE is {native!r}, which is none of {', '.join(CHOICES)}")

# No Python and no PyTorch inside: one binary for all their versions. Without it rmiseg.kernels.chunked takes its place.
library = Extension(
    "rmiseg.kernels.native._library",
    sources=[f"{SOURCES}/{name}.cpp" for name in ("labels", "loss", "pixels", "regions", "threads")],
    depends=[
        f"{SOURCES}/{name}.h"
        for name in ("common", "copies", "covariance", "gradient", "interface", "maps", "matrices", "plan", "rows")
    ],
    language="c++",
    extra_compile_args=["-std=c++17", "-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"],
    py_limited_api=True,
    optional=native == "auto",
)
setup(
    ext_modules=[] if native == "none" else [library],
    options={} if native == "none" else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
