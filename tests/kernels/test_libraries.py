"""Which of the compiled libraries is loaded, and those for other machines than this one."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rmiseg.kernels.native import library

PROJECT = Path(__file__).parents[2]
COMPILER, OBJDUMP = "x86_64-w64-mingw32-g++", "x86_64-w64-mingw32-objdump"


@pytest.mark.parametrize(("capability", "name"), [("DEFAULT", ""), ("AVX2", "_v3"), ("AVX512", "_v4")])
@pytest.mark.parametrize("only_base", [False, True])
def test_the_best_library_that_there_is(monkeypatch, capability, name, only_base):
    asked = []
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    base = "rmiseg.kernels.native._library"
    found = {base: "base"} if only_base else {base + end: end or "base" for end in ("", *library.LEVELS.values())}
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda name: asked.append(name) or found.get(name))
    assert library.find() == ("base" if only_base else name or "base")
    assert asked[0] == base + name


@pytest.mark.slow
@pytest.mark.skipif(not library.is_available(), reason="needs a C++ compiler")
@pytest.mark.parametrize("capability", ["avx2", "default"])
def test_libraries_for_less_than_this_machine(tmp_path, capability):
    if capability == "avx2" and torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("this processor has no AVX2")
    command = [sys.executable, PROJECT / "scripts" / "check_install.py", "--native", "require"]
    subprocess.run(command, cwd=tmp_path, env={**os.environ, "ATEN_CPU_CAPABILITY": capability}, check=True)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(COMPILER), reason=f"needs {COMPILER} (Debian's g++-mingw-w64-x86-64)")
def test_libraries_for_windows(tmp_path):
    """Files that hold what is called, need nothing that Windows has not, and move no vector as if it were aligned."""
    # What GCC writes for the stack, if it is not mended as Debian's is.
    move, compiler = tmp_path / "move.s", tmp_path / "g++"
    move.write_text("vmovaps %ymm0, (%rsp)\n")
    compiler.write_text(f'#!/bin/sh\nexec {COMPILER} "$@" -O0 {move}\n')  # -O0 takes less time
    compiler.chmod(0o755)
    environment = {"_PYTHON_HOST_PLATFORM": "win-amd64", "CXX": str(compiler), "RMISEG_NATIVE": "require"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", tmp_path, "--build-temp", tmp_path]
    subprocess.run(command, cwd=PROJECT, env={**os.environ, **environment}, check=True)
    files = {path.name.partition(".")[0]: path for path in tmp_path.glob("rmiseg/kernels/native/*")}
    assert set(files) == {"_library" + end for end in ("", *library.LEVELS.values())}
    called = {*library.FUNCTIONS, "rmiseg_use_threads", *(f"rmiseg_{name}_size" for name in library.LAYOUTS)}
    for path in files.values():
        headers = subprocess.run([OBJDUMP, "-p", path], capture_output=True, text=True, check=True).stdout
        assert called <= set(re.findall(r"\brmiseg_\w+", headers))
        needed = {name.lower() for name in re.findall(r"DLL Name: (\S+)", headers)}
        assert all(name in ("kernel32.dll", "msvcrt.dll") or name.startswith("api-ms-win-crt-") for name in needed)
        code = subprocess.run([OBJDUMP, "-d", path], capture_output=True, text=True, check=True).stdout
        assert "vmovups" in code
        assert not re.search(r"vmov(ap|dqa).*\(", code)
