"""What is asked of the machine."""

import ctypes
import platform

import pytest

from braincog_transformers.training import machine


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_glibc_keeps_freed_memory():
    assert machine.keep_freed_memory()


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not machine.keep_freed_memory()


def test_refused_limit_is_tried_smaller(monkeypatch):
    asked = []

    class Library:
        @staticmethod
        def mallopt(which, limit):
            asked.append((which, limit))
            return limit <= 2**25 or which == machine._M_TRIM_THRESHOLD

    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library)
    assert machine.keep_freed_memory()
    assert asked[-1] == (machine._M_MMAP_THRESHOLD, 2**25)
