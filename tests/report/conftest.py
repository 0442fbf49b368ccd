"""Run folders as training and analysis leave them."""

import json
import struct
import zlib

import pytest

EPOCHS = """epoch,train_loss,train_top1,lr,test_loss,test_top1,firing_rate
0,2.0,40.0,0.001,2.2,30.0,0.05
1,1.2,78.0,0.002,0.9,74.5,0.21
2,0.7,95.0,0.001,0.3,{top1},0.22
"""


def png(width=6, height=4):
    """Make a grey picture."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\x80" * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def energy(total=0.0125, **changes):
    """Lay out energy.json: three layers whose order by energy is neither that of execution nor that of text."""
    share = {"stem.conv": 0.2, "attn.product": 0.7, "head": 0.1}
    rows = [
        {"name": name, "type": "conv", "inputs": kind, "rate": 0.25, "macs": 4e6, "mac": 0.0, "ac": ac,
         "energy": total * share[name], "parameters": 1200}
        for name, kind, ac in zip(share, ("real", "binary", "integer"), (9.0, 1e6, 80.0), strict=True)
    ]  # fmt: skip
    table = {"method": "sdt", "rows": rows, "samples": 64, "steps": 4, "e_mac": 4.6, "e_ac": 0.9, "ann_energy": 0.05,
             "total": {"mac": 0.0, "ac": 1000089.0, "energy_mj": total}}  # fmt: skip
    return {**table, **changes}


def results(name, top1, **changes):
    """Lay out results.json."""
    return {
        "kind": "training", "experiment": name, "date": "2026-11-22T08:00:00+00:00",
        "command": f"python main.py --experiment {name}",
        "model": {"name": "spikformer_digits", "family": "Spikformer", "parameters": 163944, "step": 4,
                  "input_shape": [1, 8, 8], "num_classes": 10},
        "dataset": "digits", "samples": {"train": 1437, "test": 360},
        "results": {"test_top1": top1, "test_loss": 0.3, "epochs": 3},
        "checkpoint": None, "options": {"lr": 0.004, "model": "spikformer_digits", "experiment": name},
        "changed": {"lr": 0.004}, "environment": {"python": "3.11.9", "torch": "2.6.0"},
        "pictures": ["spike_raster.png", "confusion.png"], **changes,
    }  # fmt: skip


AUDIT = {
    "spike_driven": False, "samples": 64,
    "findings": [{"name": "stem.conv", "type": "conv", "inputs": "real", "largest": 1.0, "role": "first",
                  "meaning": "reads the data"},
                 {"name": "attn.product", "type": "product", "inputs": "integer", "largest": 3.0, "role": "inner",
                  "meaning": "up to 3 additions for an input, or 3 binary steps"}],
}  # fmt: skip
RATES = {
    "samples": 64, "steps": 3, "overall": 0.2,
    "rows": [{"name": "stem.node", "rate": 0.2, "per_step": [0.1, 0.2, 0.3], "neurons": 4096, "silent": 0.25,
              "saturated": 0.0},
             {"name": "late.node", "rate": 0.001, "per_step": [0.001], "neurons": 64, "silent": 0.9,
              "saturated": 0.0}],
}  # fmt: skip


@pytest.fixture
def make_run(tmp_path):
    """Give a function that writes a run folder; a file given as None is left out."""

    def make(name="first", *, top1=97.2, **files):
        folder = tmp_path / name
        folder.mkdir()
        content = {"results": results(name, top1), "energy": energy(), "audit": AUDIT, "rates": RATES,
                   "summary": EPOCHS.format(top1=top1), **files}  # fmt: skip
        for stem, value in content.items():
            if value is not None:
                path = folder / (f"{stem}.csv" if stem == "summary" else f"{stem}.json")
                path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
        for picture in ("spike_raster.png", "confusion.png"):
            (folder / picture).write_bytes(png())
        return folder

    make.energy, make.results, make.folder = energy, results, lambda name: tmp_path / name
    return make
