"""The compiled kernels under the sanitizers of the C++ compiler, on random problems; see sanitize.cpp."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "src" / "rmiseg" / "kernels" / "native"
COMPILER = os.environ.get("CXX", "g++")

pytestmark = pytest.mark.slow


@pytest.mark.skipif(not shutil.which(COMPILER), reason="needs a C++ compiler")
@pytest.mark.parametrize("problems", ["60", pytest.param("1000", marks=pytest.mark.nightly)])
@pytest.mark.parametrize(("sanitizer", "optimization"), [("address,undefined", "-O0"), ("thread", "-O1")])
def test_kernels_under_a_sanitizer(tmp_path, sanitizer, optimization, problems):
    """Optimized as far as it takes least time in all, to compile and to run."""
    program = tmp_path / "program"
    flags = [
        "-std=c++17",
        optimization,
        "-g1",
        "-Wno-psabi",
        *(["-march=native"] if platform.machine() in ("x86_64", "AMD64") else []),  # the longest vectors reach farthest
        f"-fsanitize={sanitizer}",
        "-fno-sanitize-recover=all",
        "-pthread",
    ]
    files = [Path(__file__).with_name("sanitize.cpp"), *sorted(SOURCES.glob("*.cpp"))]
    built = subprocess.run([COMPILER, *flags, "-pthread", *files, "-o", program], capture_output=True, text=True)
    if "cannot find" in built.stderr:
        pytest.skip(f"the compiler has no runtime for -fsanitize={sanitizer}")
    assert built.returncode == 0, built.stderr
    run = subprocess.run([program, problems], capture_output=True, text=True)
    if "unexpected memory mapping" in run.stderr:
        pytest.skip("this kernel's address layout is not one that the sanitizer knows")
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{problems} problems\n"
