"""Changed checkpoint files load or are refused in one short line that names the file; nothing in them runs."""

import io
import random
import zipfile

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save

from braincog_transformers.checkpoints import load_checkpoint
from braincog_transformers.errors import UserError

# opcodes of pickle, and globals that an attacker would like to reach
OPCODES = bytes([*b".0(12FGIJKLMNPQRSTUVXabcdeghijlopqrstu})]", *range(0x80, 0x99)])
GLOBALS = [
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"c__builtin__\ngetattr\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n"),
    *(b"cnumpy.core.multiarray\nscalar\n", b"cnumpy._core.multiarray\n_reconstruct\n", b"ccollections\ndefaultdict\n"),
    *(
        b"cargparse\nNamespace\n",
        b"cpathlib\nPosixPath\n",
        b"ctorch\nFloatStorage\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
    ),
    *(b"ctorch._utils\n_rebuild_sparse_tensor\n", b"cbuiltins\nint\n", b"ctorch\nSize\n", b"c_codecs\nencode\n"),
]


@pytest.fixture(scope="module")
def network():
    return timm.create_model("spikformer_digits", embed_dim=16, depth=1, num_heads=2, step=1)


def _content(network: torch.nn.Module) -> dict:
    beside = {"epoch": 3, "best": np.float64(0.5), "args": {"lr": 0.1, "size": torch.Size([1, 2])}}
    return beside | {"state_dict": network.state_dict()}


def _bytes_changed(draw: random.Random, content: bytes) -> bytes:
    for _ in range(draw.choice([1, 1, 2, 8])):
        place, length = draw.randrange(len(content) or 1), draw.choice([1, 1, 4, 64])
        kind = draw.randrange(4)
        if kind == 0:
            content = content[:place]
        elif kind == 1:
            content = content[:place] + draw.randbytes(length) + content[place + length :]
        elif kind == 2:
            content = content[:place] + content[place + length :]
        else:
            content = (
                content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
                if content
                else b""
            )
    return content


def _pickle_changed(draw: random.Random, content: bytes) -> bytes:
    """Change the pickle within an archive whose sums are right."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            entry = old.read(name)
            if name.endswith("data.pkl"):
                for _ in range(draw.randint(1, 4)):
                    place = draw.randrange(len(entry))
                    piece = draw.choice([bytes([draw.choice(OPCODES)]), draw.choice(GLOBALS), draw.randbytes(2), b""])
                    entry = entry[:place] + piece + entry[place + draw.choice([0, 1, len(piece)]) :]
            elif draw.random() < 0.02:
                continue
            new.writestr(name, entry)
    return buffer.getvalue()


ODD = [
    None, 1, -1.5, "x", b"x", (), [], {}, True, float("nan"), 2**70, torch.ones(()), torch.ones(2), torch.ones(0),
    torch.empty(3, device="meta"), torch.eye(3).to_sparse(), torch.ones(2, dtype=torch.complex64),
    torch.full((2,), float("nan")),
    torch.ones(3, dtype=torch.bool), torch.zeros(1).expand(5), np.float64(1), torch.Size([2]), torch.device("cpu"),
]  # fmt: skip


def _structure_changed(draw: random.Random, content: dict) -> dict:
    content = {**content, "state_dict": dict(content["state_dict"])}
    for _ in range(draw.randint(1, 3)):
        where = (
            draw.choice([content, content["state_dict"]]) if isinstance(content.get("state_dict"), dict) else content
        )
        if not where:
            break
        key, kind = draw.choice(list(where)), draw.randrange(4)
        if kind == 0:
            del where[key]
        elif kind == 1:
            where[key] = draw.choice(ODD)
        elif kind == 2:
            where[draw.choice([1, b"x", None, "model", "state_dict_ema", "net", "x" * 3000, "a\nb", ("t",)])] = (
                where.pop(key)
            )
        elif isinstance(where[key], torch.Tensor) and where[key].layout == torch.strided:
            value = where[key]
            where[key] = draw.choice(
                [value.double(), value.half(), value[None], value.flatten()[:3], value.new_full(value.shape, 2)]
            )
    return content


def _saved(content: dict) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _files(draw: random.Random, network: torch.nn.Module, ending: str):
    """Yield changed files without end."""
    if ending == "safetensors":
        sound = save({name: value.clone() for name, value in network.state_dict().items()})
        while True:
            header = 8 + int.from_bytes(sound[:8], "little")
            part = sound[:header] if draw.random() < 0.5 else sound
            yield _bytes_changed(draw, part) + sound[len(part) :]
    content = _content(network)
    sound = _saved(content)
    old = io.BytesIO()
    torch.save(content, old, _use_new_zipfile_serialization=False)
    while True:
        kind = draw.randrange(4)
        if kind == 0:
            yield _bytes_changed(draw, sound)
        elif kind == 1:
            yield _bytes_changed(draw, old.getvalue())
        elif kind == 2:
            yield _pickle_changed(draw, sound)
        else:
            yield _saved(_structure_changed(draw, content))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_changed_file_loads_or_is_refused_in_one_short_line(fuzz_cases, network, tmp_path, ending):
    draw, path = random.Random(13), tmp_path / f"changed.{ending}"
    files = _files(draw, network, ending)
    counts = {"loaded": 0, "refused": 0}
    for _ in range(fuzz_cases):
        path.write_bytes(next(files))
        try:
            load_checkpoint(network, path)
            counts["loaded"] += 1
        except UserError as error:
            line = str(error)
            assert path.name in line
            assert "\n" not in line
            assert len(line) < 900, line
            counts["refused"] += 1
        assert all(torch.isfinite(value).all() for value in network.state_dict().values())
    assert counts["refused"] > 0
