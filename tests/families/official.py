"""An official network as the metadata of a test vector describe it: where it is from, and how it was built."""

import re
from functools import wraps

# Arguments of official constructors that change no result in any of the released classes: dropout and stochastic depth
# that are declared and not called (or were off), names of layers, the pyramid of another family.
IDLE = {
    "attn_drop_rate", "attn_mode", "cml", "drop_path_rate", "drop_rate", "get_embed", "norm_layer", "pretrained",
    "pretrained_cfg", "pretrained_cfg_overlay", "qk_scale", "qkv_bias", "sr_ratios",
}  # fmt: skip
_MISSING = object()


class Official:
    """Read arguments one by one, with the official default where a vector leaves one out; `done` refuses others.

    Attributes:
        repository: "owner/name".
        path: file inside it.
        kind: "cifar", "events" or "imagenet", as its folder says; "" where the folder says nothing.
        input: shape of the input, its batch in front, where the vector is at hand; else as the arguments say.
        classes: number of classes, from the logits or the arguments.
    """

    def __init__(self, kwargs, meta):
        self.meta, self._kwargs, self._read = meta, kwargs, set()
        self.repository, self.path = source_of(meta)
        self.kind = _kind(self.path)
        self.input = meta.get("input_shape") or self._input_of_kwargs()
        self.classes = meta.get("classes") or kwargs.get("num_classes")

    def _input_of_kwargs(self):
        side = self._kwargs.get("img_size")
        size = (self._kwargs.get("img_size_h", side), self._kwargs.get("img_size_w", side))
        steps = (self._kwargs.get("T", self._kwargs.get("step")),) if "T" in axes_of(self.meta) else ()
        return (
            (1, *steps, 700)
            if "700" in self.meta["input_layout"]
            else (1, *steps, self._kwargs.get("in_channels"), *size)
        )

    def read(self, name, default=_MISSING):
        """Return an argument."""
        self._read.add(name)
        if name in self._kwargs:
            return self._kwargs[name]
        if default is _MISSING:
            raise ValueError(f"{self}: kwargs have no {name!r}, which has no official default")
        return default

    def steps(self, name="T"):
        """Return T: of frames how many there are, of images what was set after construction or by the argument."""
        built = self.read(name, None)
        if len(self.input) != 4 and self.input[1]:
            return self.input[1]
        return int(re.match(r"\d+", str(self.meta.get("timesteps", built or 4))).group())

    def size(self):
        """Return height and width of the input, which the official classes take from the tensor."""
        for name in ("img_size_h", "img_size_w", "img_size"):
            self.read(name, None)
        return tuple(self.input[-2:])

    def common(self, dim, heads):
        """Return the arguments that most constructors share, under our names."""
        self.read("patch_size", None), self.read("in_channels", None), self.read("num_classes", None)
        return {
            "img_size": self.size(),
            "in_chans": self.input[-3],
            "num_classes": self.classes,
            "embed_dim": self.read("embed_dims", dim),
            "num_heads": self.read("num_heads", heads),
            "mlp_ratio": self.read("mlp_ratios", 4),
        }

    def done(self):
        """Raise `ValueError` if there is an argument that nobody has read and that is not known to be idle."""
        if unknown := sorted(self._kwargs.keys() - self._read - IDLE):
            raise ValueError(f"{self}: kwargs hold {', '.join(unknown)}, which tests/families does not know")

    def require_kind(self):
        """Return the kind; raise `ValueError` for a folder that is none of those known."""
        if not self.kind:
            raise ValueError(f"{self}: the folder is none of cifar*, imagenet, *dvs* and *gesture*")
        return self.kind

    def __str__(self):
        return f"{self.meta['class']} of {self.meta['source']}"


def builder(build):
    """Make a function of an `Official` one of kwargs and metadata, which refuses arguments that were not read."""

    @wraps(build)
    def build_from(kwargs, meta):
        official = Official(kwargs, meta)
        model = build(official)
        official.done()
        return model

    return build_from


def axes_of(meta):
    """Return the letters of an input's axes in order, as "BTCHW"; what is said of them beside is left out."""
    return re.sub("[^A-Z]", "", re.split(r"\) |[ (]*\bstatic|[ (]*\bevent", meta["input_layout"])[0])


def source_of(meta):
    """Return repository and path of a vector's source, "owner/name@commit:path"; empty texts where it is another."""
    found = re.match(r"([\w.-]+/[\w.-]+)@\w+:(.*)", meta.get("source", ""))
    return found.groups() if found else ("", "")


def _kind(path):
    for folder in path.lower().split("/")[:-1]:
        if "dvs" in folder or "gesture" in folder:
            return "events"
        if folder.startswith(("cifar", "imagenet")):
            return "cifar" if folder.startswith("cifar") else "imagenet"
    return ""
