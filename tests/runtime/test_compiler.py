"""Kernels that can't be compiled or loaded are built anew once; then the plain form runs, with one line."""

import os
import struct
import subprocess
import sys
import warnings

import pytest
import torch
from filelock import FileLock
from torch._functorch.aot_autograd import make_boxed_func
from torch._inductor import compile_fx

from braincog_transformers.runtime import compiler, kernel_cache

pytestmark = pytest.mark.kernels
linux = pytest.mark.skipif(sys.platform != "linux", reason="libraries have another format there")


def _triple(x):
    return 3 * x


@pytest.fixture
def anew(monkeypatch, tmp_path):
    """Forget what was compiled and said, and keep kernels in a folder of this test."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    for cached in (compiler.compiled, compiler._say, kernel_cache.sweep):
        cached.cache_clear()
    yield monkeypatch
    compiler.compiled.cache_clear()


def _failing(times, error):
    """Return a stand-in for PyTorch's compiler that fails at first, and a list that counts its calls."""
    calls = []

    def compile_graph(graph, inputs, **_):
        calls.append(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        if len(calls) <= times:
            raise error
        return graph.forward

    return compile_graph, calls


BROKEN = [
    ImportError("/elsewhere/kernel.so: file too short"),
    OSError(28, "No space left on device"),
    PermissionError(13, "Permission denied"),
    RuntimeError("C++ compile error"),
]


@pytest.mark.parametrize("error", BROKEN, ids=lambda e: type(e).__name__)
def test_a_kernel_that_fails_once_is_built_anew_in_another_folder_without_a_word(anew, error):
    stand_in, calls = _failing(1, error)
    anew.setattr(compile_fx, "compile_fx", stand_in)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiler.compiled(_triple)(torch.ones(3)).tolist() == [3, 3, 3]
    assert len(set(calls)) == 2
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == calls[0]


@pytest.mark.parametrize("error", BROKEN, ids=lambda e: type(e).__name__)
def test_a_kernel_that_fails_twice_runs_in_its_plain_form_with_one_line(anew, error):
    stand_in, calls = _failing(99, error)
    anew.setattr(compile_fx, "compile_fx", stand_in)
    kernels = compiler.compiled(_triple), compiler.compiled(_triple, "another setting")
    with pytest.warns(RuntimeWarning, match="can't be compiled or loaded here") as caught:
        found = [kernel(torch.ones(3)).tolist() for kernel in kernels]
    assert found == [[3, 3, 3]] * 2
    ours = [warning for warning in caught if warning.category is RuntimeWarning]
    assert len(ours) == 1
    assert "\n" not in str(ours[0].message)
    assert len(calls) == 4


def test_a_mistake_in_a_kernel_is_not_taken_for_a_broken_compiler(anew):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Exception, match="size") as caught:
            compiler.compiled(lambda x: x + torch.ones(5))(torch.ones(3))
    assert not isinstance(caught.value, Warning)


def test_a_network_whose_backward_pass_can_t_be_compiled_trains_all_the_same(anew):
    def no_backward(graph, inputs, **options):
        if options.get("is_backward"):
            raise ImportError("/elsewhere/kernel.so: file too short")
        return make_boxed_func(graph.forward)

    anew.setattr(compile_fx, "compile_fx_inner", no_backward)
    layer, x = torch.nn.Linear(4, 4), torch.randn(2, 4)
    expected = torch.autograd.grad(layer(x).sigmoid().sum(), layer.weight)
    torch.compiler.reset()
    out = torch.compile(layer, backend=compiler.inductor)(x)
    with pytest.warns(RuntimeWarning, match="can't be compiled or loaded here"):
        found = torch.autograd.grad(out.sigmoid().sum(), layer.weight)
    torch.testing.assert_close(found, expected)


def _library(path, *, length=4096, kept=None):
    """Write the header of a library in ELF whose sections end at `length`, and `kept` of its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytearray(64)
    head[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", head, 40, length - 2 * 64)
    struct.pack_into("<HH", head, 58, 64, 2)
    path.write_bytes((bytes(head) + bytes(length - 64))[:kept])
    return path


@linux
def test_half_libraries_are_removed_and_whole_ones_stay(tmp_path):
    whole = _library(tmp_path / "ab" / "whole.so")
    halves = [_library(tmp_path / "cd" / f"{kept}.so", kept=kept) for kept in (0, 20, 64, 4000)]
    zeros = tmp_path / "cd" / "zeros.main.so"
    zeros.write_bytes(bytes(4096))
    kernel_cache.sweep.cache_clear()
    kernel_cache.sweep(str(tmp_path))
    assert whole.is_file()
    assert not any(path.exists() for path in [*halves, zeros])


@linux
def test_every_library_that_this_machine_loads_counts_as_whole():
    assert kernel_cache._whole(kernel_cache.Path(torch._C.__file__))


@linux
def test_a_library_that_is_being_written_stays(tmp_path, monkeypatch):
    half = _library(tmp_path / "ab" / "kernel.main.so", kept=100)
    (tmp_path / "locks").mkdir()
    monkeypatch.setattr(kernel_cache, "_PATIENCE", 0.1)
    kernel_cache.sweep.cache_clear()
    with FileLock(str(tmp_path / "locks" / "kernel.lock")), pytest.raises(OSError, match="lock"):
        kernel_cache.sweep(str(tmp_path))
    assert half.exists()


def test_only_files_of_the_cache_that_an_error_names_are_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    names = ["cache/ab/k.so", "cache/ab/k.main.o", "cache/h/head.h.gch", "cache/ab/k.cpp", "cache/ab/other.so", "k.so"]
    files = [_library(tmp_path / name) for name in names]
    text = f"ImportError: {files[0]}: file too short\ng++ {files[3]} {files[1]} -include {files[2].with_suffix('')}"
    text += f" {files[5]}"
    assert kernel_cache.remove_named(RuntimeError(text))
    assert [file.exists() for file in files] == [False, False, False, True, True, True]
    assert not kernel_cache.remove_named(RuntimeError(text))


_RUN = """
import sys, warnings, torch
warnings.simplefilter("error", RuntimeWarning) if sys.argv[1] == "silent" else None
from braincog_transformers import LIFNode
from braincog_transformers.ops.kernels import fused_neuron
fused_neuron.MIN_ELEMENTS = 0
x = torch.linspace(-1, 4, 512).view(8, 64).requires_grad_()
spikes = LIFNode(step=4, layer_by_layer=True)(x)
spikes.sum().backward()
print(spikes.sum().item(), x.grad.double().sum().item())
"""


def _run(cache, *, silent=True, **environment):
    found = subprocess.run(
        [sys.executable, "-c", _RUN, "silent" if silent else "aloud"],
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache), **environment},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert "Traceback" not in found.stderr
    return [float(number) for number in found.stdout.split()], found.stderr


@linux
@pytest.mark.slow
def test_a_run_in_a_cache_of_damaged_libraries_repairs_it(tmp_path):
    expected, _ = _run(tmp_path)
    libraries = sorted(tmp_path.glob("*/*.so"))
    for kind, path in enumerate(libraries):
        whole = path.read_bytes()
        path.unlink()  # no process may still have it in memory
        path.write_bytes([b"", whole[: len(whole) // 2], bytes(len(whole))][kind % 3])
    assert _run(tmp_path)[0] == expected
    assert all(kernel_cache._whole(path) for path in libraries)


@pytest.mark.slow
def test_without_a_compiler_a_run_says_so_once_and_goes_on(tmp_path):
    values, said = _run(tmp_path, silent=False, CXX="false")
    assert said.count("does not work for cpu here") == 1
    assert values[0] > 0


@pytest.mark.slow
def test_a_cache_that_can_t_be_made_is_replaced(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    values, said = _run(tmp_path / "file", silent=False)
    assert values[0] > 0
    assert said.count("TORCHINDUCTOR_CACHE_DIR") == 1
