"""The compiled part of rmiseg; everything else stands in pyproject.toml."""

from setuptools import Extension, setup

NATIVE = "src/rmiseg/kernels/native"

setup(
    ext_modules=[
        # No Python and no PyTorch inside: one binary for all their versions. Without a C++ compiler the installation
        # goes on, and rmiseg.kernels.chunked takes its place.
        Extension(
            "rmiseg.kernels.native._library",
            sources=[f"{NATIVE}/pixels.cpp", f"{NATIVE}/regions.cpp"],
            depends=[f"{NATIVE}/common.h", f"{NATIVE}/rows.h"],
            language="c++",
            extra_compile_args=["-std=c++17", "-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"],
            extra_link_args=["-pthread"],
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
