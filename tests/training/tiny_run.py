"""A tiny network, an in-memory loader and a short way to run `fit`, for the tests of training."""

from pathlib import Path

import torch
from timm.data import Mixup
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import nn

from braincog_transformers.training.distributed import Ranks
from braincog_transformers.training.generators import seed_everything
from braincog_transformers.training.journal import Journal
from braincog_transformers.training.learner import Learner, Plan, Progress, UpdateRules
from braincog_transformers.training.loaders import ImageMixer, Loaders, ToDevice
from braincog_transformers.training.loop import fit
from braincog_transformers.training.losses import build_loss
from braincog_transformers.training.meters import ClassMeter
from braincog_transformers.training.precision import Precision
from braincog_transformers.training.saving import Checkpoints, find_state
from braincog_transformers.training.state import restore
from braincog_transformers.training.stopping import StopRequest

CLASSES = 6
# options of a whole run, from `main` to results, that takes a second or two
DIGITS = ["--dataset", "digits", "--model", "spikformer_digits", "--step", "2", "--device", "cpu", "--workers", "0"]
SHORT = ["--epochs", "1", "--warmup-epochs", "0", "--cooldown-epochs", "0", "-b", "9", "--tensorboard-dir", ""]


class TinyNet(nn.Module):
    """Convolution, optional norm, dropout, head; `step` copies of the logits, slightly apart."""

    def __init__(self, *, norm: bool = True, drop: float = 0.2):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.drop = nn.Dropout(drop)
        self.head = nn.Linear(8 * 16, CLASSES)
        self.step = 4
        self.output_steps = False

    def set_attr(self, name: str, value: object) -> None:
        setattr(self, name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.head(self.drop(torch.relu(self.norm(self.conv(x)))).flatten(1))
        steps = torch.stack([logits * (1 + 0.1 * t) for t in range(self.step)])
        return steps if self.output_steps else steps.mean(0)


class TwoHeads(TinyNet):
    """A tiny network with a distillation head."""

    def __init__(self, **options):
        super().__init__(**options)
        self.head_dist = nn.Linear(8 * 16, CLASSES)
        self.distilled_training = True

    def forward(self, x):
        features = torch.relu(self.norm(self.conv(x))).flatten(1)
        heads = self.head(features), self.head_dist(features)
        return heads if self.training and self.distilled_training else (heads[0] + heads[1]) / 2


class Oracle(nn.Module):
    """A teacher that answers one class whatever it sees, and keeps what it saw."""

    def __init__(self, answer: int):
        super().__init__()
        self.answer, self.seen = answer, []

    def forward(self, x):
        assert not torch.is_grad_enabled()
        self.seen.append(x)
        return torch.eye(CLASSES)[self.answer].expand(len(x), -1) * 9


class MemoryLoader:
    """Samples in memory; the order is a function of seed and epoch, ranks take every n-th sample."""

    def __init__(self, x, y, batch_size, *, train, rank=0, world_size=1, seed=0):
        self.x, self.y, self.batch_size, self.train = x, y, batch_size, train
        self.rank, self.world_size, self.seed = rank, world_size, seed
        self.epoch = self.skip = 0

    def set_epoch(self, epoch, skip_batches=0):
        self.epoch, self.skip = epoch, skip_batches

    def _own(self):
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.x), generator=generator) if self.train else torch.arange(len(self.x))
        return order[self.rank :: self.world_size]

    def __len__(self):
        return -(-len(self._own()) // self.batch_size)

    def __iter__(self):
        for number, index in enumerate(self._own().split(self.batch_size)):
            if number >= self.skip:
                yield self.x[index], self.y[index]
        self.skip = 0


def samples(count: int = 24):
    """Return `count` images `(1, 4, 4)` and their classes."""
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, 1, 4, 4, generator=generator), torch.arange(count) % CLASSES


class Run:
    """One run of `fit` in a folder: build everything anew, resume if asked, train, keep the ends."""

    def __init__(
        self, folder: Path, *, epochs=3, batch_size=4, grad_accum=1, ema=True, mixup=True, norm=True, drop=0.2,
        rules=None, loss=None, amp=None, recovery_interval=0, opt="adamw", lr=0.02, sched="cosine", count=24, seed=7,
        ranks=None, mixing_ends=0, network=TinyNet, teacher=None,
    ):  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        seed_everything(seed)
        self.ranks = ranks or Ranks(device=torch.device("cpu"))
        network = network(norm=norm, drop=drop)
        optimizer = create_optimizer_v2(network, opt=opt, lr=lr, weight_decay=0.05)
        scheduler, _ = create_scheduler_v2(
            optimizer, sched=sched, num_epochs=epochs, warmup_epochs=1, warmup_lr=1e-3, patience_epochs=0
        )
        average = ModelEmaV3(network, decay=0.9) if ema else None
        self.learner = Learner(
            network=network, optimizer=optimizer, precision=Precision("cpu", amp), seed=seed, rank=self.ranks.rank,
            scheduler=scheduler, ema=average,
        )  # fmt: skip
        x, y = samples(count)
        share = {"rank": self.ranks.rank, "world_size": self.ranks.world_size}
        mixer = ImageMixer(Mixup(mixup_alpha=0.5, cutmix_alpha=1.0, num_classes=CLASSES)) if mixup else None
        self.loaders = Loaders(
            train=MemoryLoader(x, y, batch_size, train=True, **share),
            test=MemoryLoader(x, y, 5, train=False, **share),
            to_device=ToDevice(),
            mixer=mixer,
            mixing_ends=mixing_ends,
        )
        self.plan_arguments = {
            "epochs": epochs,
            "rules": rules or UpdateRules(grad_accum=grad_accum),
            "criterion": loss or build_loss("ce", smoothing=0.1),
            "meter": lambda: ClassMeter(build_loss("ce")),
            "metric": "ema_top1" if ema else "test_top1",
            "recovery_interval": recovery_interval,
            "teacher": teacher,
        }
        self.folder, self.progress, self.said = folder, Progress(), []
        self.checkpoints = Checkpoints(folder, history=3)
        self.stop = StopRequest()

    def resume(self, path: Path | None = None) -> "Run":
        _, state = find_state(path or self.folder, self.said.append)
        restore(state, self.learner, self.progress, self.ranks)
        self.checkpoints.continue_from(state, metric=self.plan_arguments["metric"])
        return self

    def fit(self, *, max_steps: int | None = None) -> "Run":
        journal = Journal(
            self.folder, epochs=self.plan_arguments["epochs"], interval=1000, printer=self.said.append,
            speaks=self.ranks.first,
        )  # fmt: skip
        self.rows = fit(
            self.learner, self.progress, loaders=self.loaders, plan=Plan(**self.plan_arguments, max_steps=max_steps),
            checkpoints=self.checkpoints, ranks=self.ranks, journal=journal, stop=self.stop,
        )  # fmt: skip
        return self

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        ema = self.learner.ema
        average = {} if ema is None else {f"ema.{name}": value for name, value in ema.module.state_dict().items()}
        return dict(self.learner.network.state_dict()) | average


def assert_same(one: Run, other: Run) -> None:
    """Compare weights, rows and the table bit for bit."""
    assert one.weights.keys() == other.weights.keys()
    different = [name for name, value in one.weights.items() if not torch.equal(value, other.weights[name])]
    assert not different
    assert one.rows == other.rows
    assert (one.folder / "summary.csv").read_bytes() == (other.folder / "summary.csv").read_bytes()
