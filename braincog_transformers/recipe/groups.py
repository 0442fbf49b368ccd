"""Declare every option of the command line: one documented field each, in frozen groups, without torch.

A field's name is the option's name with underscores (`batch_size` is `--batch-size`); its type, default, help text,
and the facts beside them (`fields.py`) are all that the parser, the recipes, the checks and the runs know about it.
`None` means that the data set or the model decides.
"""

from dataclasses import dataclass, field, fields
from functools import partial

from .fields import option
from .refused import RefusedOptions

__all__ = ["GROUPS", "AllOptions"]

_event = partial(option, kinds=("event",))
_image = partial(option, kinds=("image",))
_planar = partial(option, kinds=("event", "image"))  # needs height and width
_sourced = partial(option, needs="dataset_source")
_taught = partial(option, needs="teacher")
_free = partial(option, numbers=False)


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """data"""

    dataset: str = option("dvsc10", "name of the data set; an unknown one lists those that exist")
    data_dir: str = _free("./data", "folder that holds the data sets")
    dataset_source: str = option(
        "",
        "read imnet through timm's dataset factory: wds/NAME (shards), hfds/NAME, hfids/NAME, tfds/NAME or torch/NAME; "
        "streams (wds, hfids, tfds) change their order with --workers",
        named="name a source",
    )
    train_split: str = _sourced("train", "training split of --dataset-source, or its shards: x-{000..127}.tar|100000")
    val_split: str = _sourced("validation", "evaluation split of --dataset-source, or its shards")
    train_num_samples: int | None = _sourced(None, "samples of a streamed --train-split that does not say so", low=1)
    val_num_samples: int | None = _sourced(None, "samples of a streamed --val-split that does not say so", low=1)
    class_map: str | None = _sourced(None, "file with the classes of --dataset-source in the order of the labels")
    input_key: str | None = _sourced(None, "field of the picture in --dataset-source (default: timm's)")
    target_key: str | None = _sourced(None, "field of the label in --dataset-source (default: timm's)")
    download: bool = _free(False, "fetch a missing data set into --data-dir; nothing is fetched unasked")
    cache_dir: str | None = _event(
        None, "folder of the cached event frames (default: inside --data-dir)", numbers=False
    )
    no_cache: bool = _event(False, "read the recordings anew in every epoch, and write no cache", numbers=False)
    max_pixels: int = _image(
        178_956_970, "largest number of pixels of a photo; one with more is refused", low=1, numbers=False
    )
    num_classes: int | None = option(None, "size of the head (default: the data set's classes)", low=1)
    img_size: int | None = _image(
        None, "side of static images (default: the data set's or the model's)", low=1, high=16_384
    )
    event_size: int | None = _event(
        None,
        "event frames are resized to this side (default: the sensor's, or the network's if that is smaller)",
        low=1,
        high=4096,
    )
    crop_pct: float | None = _image(None, "share kept by the centre crop in evaluation", low=0.1, high=1)
    mean: tuple[float, ...] | None = _image(None, "mean by channel (default: the data set's)")
    std: tuple[float, ...] | None = _image(None, "standard deviation by channel (default: the data set's)", above=0)
    interpolation: str | None = _image(
        None, "resizing in evaluation (default: bicubic)", choices=("nearest", "bilinear", "bicubic", "lanczos")
    )
    train_portion: float = option(0.9, "share for training where a set has no test split", above=0, high=1)
    split: str | None = option(
        None,
        "split of a set that has none of its own: by file name, TEBN's, or seeded, class by class or stratified "
        "(default: the set's first); valid: evaluate on ssc's validation samples",
        choices=("text", "tebn", "random", "stratified", "valid"),
    )
    split_seed: int = option(0, "chooses among the seeded splits; --seed never moves samples to the other side", low=0)
    frames_by: str = _event(
        "number", "cut recordings into equal numbers of events or equal times", choices=("number", "time")
    )
    remainder: str = _event("last", "left-over events: into the last frame, or dropped", choices=("last", "drop"))
    frames: str = _event(
        "count",
        "event frames: counts, signed voxel grids, or surfaces of the age of the last event (the latter two by time)",
        choices=("count", "voxel", "surface"),
    )
    surface_tau: float = _event(50_000.0, "time constant of --frames surface in microseconds", above=0)
    clip_counts: int | None = _event(
        None, "largest count of a sensor's pixel in a frame; 1: binary frames (default: no limit)", low=1
    )
    event_resize: str = _event(
        "area",
        "resizing of event frames: by area, or BrainCog's bilinear one with aligned corners, which loses events",
        choices=("area", "bilinear"),
    )
    frame_norm: str = _event(
        "none",
        "divide each event sample by its largest value or by its mean (published recipes: none)",
        choices=("none", "max", "mean"),
    )
    skip_bad: bool = _event(False, "leave event recordings out that can't be read, and list them")
    merge_polarity: bool = _event(False, "count events of both polarities together: frames of one channel")
    polarity_sum: bool = _event(False, "append the sum of both polarities to event frames as a third channel")
    label_order: str = _event(
        "number",
        "labels of dvsg: the data set's, or SpikingJelly's, on which published checkpoints were trained; of "
        "bullying10k: its authors', or BrainCog's by name",
        choices=("number", "text"),
    )
    batch_size: int = option(128, "training samples by process and forward pass", "-b", low=1)
    validation_batch_size_multiplier: int = option(1, "evaluation batch in training batches", "-vb", low=1)
    workers: int | None = _free(
        None, "loading processes (default: one for each core, at most 8)", "-j", low=0, high=1024
    )
    pin_mem: bool = _free(False, "load into page-locked memory, for faster copies to a GPU")
    no_prefetcher: bool = _free(False, "copy a batch to the GPU when it is needed, not one ahead")
    use_multi_epochs_loader: bool = _free(False, "keep the loading processes from epoch to epoch")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """model"""

    model: str = option("spikformer", "name of the network (see --list-models)")
    pretrained: bool = _free(False, "start from the published weights, where the model has a source for them")
    initial_checkpoint: str = _free(
        "", "start from the weights in this file, official or ours", named="name a checkpoint"
    )
    step: int | None = option(None, "number of time steps T (default: the model's)", low=1)
    encode: str = _image("direct", "how a static image becomes T inputs", choices=("direct", "rate", "ttfs", "phase"))
    layer_by_layer: bool = option(True, "all steps of a layer at once, or the whole network step by step")
    temporal_flatten: bool = _event(False, "fold time into the channels: a network of one step on event data")
    rand_step: bool = option(False, "train each batch with a random number of steps from 1 to T")
    drop: float | None = option(None, "dropout rate (default: the model's)", low=0, high=1)
    drop_path: float | None = option(None, "stochastic depth rate (default: the model's)", low=0, high=1)
    bn_tf: bool = option(False, "TensorFlow's momentum and epsilon in every batch norm")
    bn_momentum: float | None = option(None, "momentum of every batch norm (default: the model's)", low=0, high=1)
    bn_eps: float | None = option(None, "epsilon of every batch norm (default: the model's)", above=0)
    distilled: bool = option(False, "add the head that learns from a --teacher, where the model has one")
    as_released: bool = option(False, "keep the faults of the released code, where the model has such")
    model_kwargs: tuple[str, ...] | None = option(None, "further arguments of the network: depth=2 mlp_ratio=4.0")
    grad_checkpointing: bool = option(False, "recompute activations in the backward pass, to save memory")
    pack_spikes: bool = _free(True, "keep spikes for the backward pass as bits; the same numbers in less memory")
    integer_products: bool = _free(True, "float32 products of spikes in 8-bit integers, where a processor has AMX")


@dataclass(frozen=True, kw_only=True)
class NeuronOptions:
    """neurons (default: what the model's paper uses)"""

    node_type: str | None = option(None, "class of every neuron: LIFNode, PLIFNode, IFNode, ...")
    act_fun: str | None = option(None, "surrogate gradient: SigmoidGrad, AtanGrad, GateGrad, QGateGrad, ...")
    alpha: float | None = option(None, "steepness of the surrogate gradient", above=0)
    threshold: float | None = option(None, "firing threshold", above=0)
    tau: float | None = option(None, "membrane time constant in steps", low=1)
    requires_thres_grad: bool = option(False, "learn the thresholds")
    sigmoid_thres: bool = option(False, "keep learnt thresholds in (0, 1) by a sigmoid")


@dataclass(frozen=True, kw_only=True)
class OptimOptions:
    """optimizer"""

    opt: str = option("adamw", "name of a timm optimizer")
    opt_eps: float | None = option(1e-8, "epsilon of the optimizer", above=0)
    opt_betas: tuple[float, ...] | None = option(None, "betas of the optimizer", low=0, high=0.999999)
    opt_kwargs: tuple[str, ...] | None = option(None, "further arguments of the optimizer: trust_clip=True")
    momentum: float = option(0.9, "momentum of the optimizer", low=0, high=1)
    weight_decay: float = option(1e-4, "weight decay; biases and norms are spared", low=0)
    clip_grad: float | None = option(None, "largest norm of the gradient (default: no clipping)", above=0)
    grad_accum: int = option(1, "forward passes whose gradients make one optimizer step", low=1)
    noisy_grad: float = option(0.0, "standard deviation of Gaussian noise added to gradients", low=0)


@dataclass(frozen=True, kw_only=True)
class SchedOptions:
    """learning rate"""

    lr: float = option(5e-3, "learning rate at an effective batch of --lr-base-size samples", above=0)
    lr_base_size: int = option(
        1024,
        "lr is multiplied by effective batch / this number (batch-size x processes x grad-accum); "
        "0: lr is used as it is; warmup-lr and min-lr are never scaled",
        low=0,
    )
    sched: str = option("cosine", "schedule", choices=("cosine", "tanh", "step", "plateau", "poly"))
    lr_noise: tuple[float, ...] | None = option(
        None, "start (and end) of noise on the rate, in shares of the epochs", low=0, count=(1, 2)
    )
    lr_noise_pct: float = option(0.67, "limit of the noise, as a share of the rate", above=0, high=1)
    lr_noise_std: float = option(1.0, "standard deviation of the noise", low=0)
    lr_cycle_mul: float = option(1.0, "each cosine cycle is longer than the last by this factor", above=0)
    lr_cycle_limit: int = option(1, "number of cosine cycles", low=1)
    warmup_lr: float = option(1e-6, "learning rate at the start of the warm-up", low=0)
    min_lr: float = option(1e-5, "lowest learning rate", low=0)
    epochs: int = option(400, "epochs of the schedule, cool-down not counted", low=1)
    start_epoch: int | None = option(None, "first epoch (default: 0, or where the checkpoint stopped)", low=0)
    decay_epochs: float = option(30.0, "epochs between two steps of the step schedule", above=0)
    warmup_epochs: int = option(5, "epochs of warm-up", low=0)
    warmup_prefix: bool = option(False, "the warm-up comes before --epochs, not within them")
    sched_on_updates: bool = option(False, "move the rate with every optimizer step, not with every epoch")
    cooldown_epochs: int = option(10, "epochs at the lowest rate, after the schedule", low=0)
    patience_epochs: int = option(10, "epochs without progress before the plateau schedule steps", low=0)
    decay_rate: float = option(0.1, "factor of one step of the step and plateau schedules", "--dr", above=0)
    power: float = option(1.0, "exponent of the poly schedule", above=0)


@dataclass(frozen=True, kw_only=True)
class AugOptions:
    """augmentation (default: what suits the data set; for imnet, timm's)"""

    no_aug: bool = option(False, "no augmentation at all, whatever the other options say")
    scale: tuple[float, ...] | None = _image(None, "share of the area in a random crop", above=0, high=1, count=(2,))
    ratio: tuple[float, ...] | None = _image(None, "aspect ratio of a random crop", above=0, count=(2,))
    hflip: float | None = _planar(None, "chance of a horizontal flip", low=0, high=1)
    vflip: float | None = _planar(None, "chance of a vertical flip", low=0, high=1)
    color_jitter: float | None = _image(None, "strength of colour jitter; without effect beside --aa", low=0)
    aa: str | None = _image(
        None, "AutoAugment policy for images, timm's or spikformer-m9-n1-mstd0.4-inc1; none: off", empty=True
    )
    reprob: float | None = _image(None, "chance of random erasing", low=0, high=1)
    remode: str | None = _image(None, "filling of erased areas", choices=("const", "rand", "pixel"))
    recount: int | None = _image(None, "number of erased areas", low=1, high=1000)
    aug_repeats: int = _image(
        0,
        "augmented copies of an image in each epoch, which stays as long and takes fewer images; 0 and 1: none but it",
        low=0,
        high=1000,
    )
    train_interpolation: str | None = _image(
        None, "resizing in training", choices=("random", "nearest", "bilinear", "bicubic", "lanczos")
    )
    event_augment: tuple[str, ...] | None = _event(
        None,
        "augmentations of event frames, applied in this order: of the Spikformer family (its copy without erasing), "
        "BrainCog, SpikingResformer (with its flip), OST and TET (roll with a flip), EventDrop and its parts, and "
        "single ones",
        choices=(
            *("none", "snn_wide", "snn_wide_sdt", "crop", "resformer", "roll", "roll_flip", "rotate", "shear"),
            *("cutout", "event_drop", "drop_time", "drop_area", "drop_random"),
        ),
    )
    rand_aug: bool = _event(False, "RandAugment on event frames")
    randaug_n: int = option(3, "operations of --rand-aug by sample", "--randaug_n", low=1, high=1000)
    randaug_m: int = option(15, "magnitude of --rand-aug, 30 being the strongest", "--randaug_m", low=0, high=30)


@dataclass(frozen=True, kw_only=True)
class MixOptions:
    """mixing of samples"""

    mixup: float = option(0.0, "alpha of mixup; 0: off", low=0)
    cutmix: float = _planar(0.0, "alpha of cutmix; 0: off", low=0)
    cutmix_minmax: tuple[float, ...] | None = _planar(
        None, "smallest and largest share of a cutmix box; turns cutmix on", low=0, high=1, count=(2,)
    )
    mixup_prob: float = option(0.0, "chance that a batch is mixed by --mixup or --cutmix", low=0, high=1)
    mixup_switch_prob: float = option(0.5, "chance of cutmix where both are on", low=0, high=1)
    mixup_mode: str = option("batch", "one mix by batch, pair or element", choices=("batch", "pair", "elem"))
    mixup_off_epoch: int = option(0, "epoch from which nothing is mixed; 0: never off", low=0)
    mix_up: bool = _event(False, "BrainCog's MixUp of event samples")
    cut_mix: bool = _event(False, "BrainCog's CutMix of event samples, after --mix-up where both are on")
    event_mix: bool = _event(False, "BrainCog's EventMix of event samples, after the other two")
    cutmix_beta: float = option(2.0, "Beta distribution of the event mixers", "--cutmix_beta", above=0)
    cutmix_prob: float = option(0.5, "chance that an event sample is mixed", "--cutmix_prob", low=0, high=1)
    cutmix_num: int = option(1, "how many times an event sample is mixed", "--cutmix_num", low=1, high=1000)
    cutmix_noise: float = option(0.0, "noise on the targets of mixed event samples", "--cutmix_noise", low=0, high=1)
    gaussian_n: int = option(3, "Gaussians in the mask of EventMix", low=1, high=1000)


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """loss, precision, distribution"""

    loss_fn: str = option("ce", "cross entropy, squared error or binary cross entropy", choices=("ce", "mse", "bce"))
    smoothing: float = option(0.1, "label smoothing", low=0, high=1)
    tet_loss: bool = option(False, "temporal efficient training: the loss at every step, averaged")
    tet_lambda: float = option(0.0, "share of TET's squared distance to --tet-means", low=0, high=1)
    tet_means: float = option(1.0, "target of TET's squared distance")
    teacher: str = _image(
        "", "timm model that the network learns from beside the labels (distillation)", named="name a model of timm's"
    )
    teacher_checkpoint: str = _taught(
        "", "weights of --teacher (default: its published ones, which timm downloads)", named="name a checkpoint"
    )
    distill: str = _taught("hard", "learn the teacher's class, or its distribution", choices=("hard", "soft"))
    distill_alpha: float = _taught(0.5, "share of the teacher in the loss", low=0, high=1)
    distill_tau: float = _taught(1.0, "temperature of soft distillation", above=0)
    amp: bool = option(False, "mixed precision", "--native-amp")
    amp_dtype: str = option("bfloat16", "type of --amp", choices=("bfloat16", "float16"))
    compile: bool = option(False, "compile the network with torch.compile")
    channels_last: bool = option(False, "channels-last memory format")
    sync_bn: bool = option(False, "batch norm over all processes")
    dist_bn: str = option("", "share batch norm statistics after an epoch", choices=("", "broadcast", "reduce"))
    dist_backend: str = _free("", "gloo or nccl (default: by the device)", choices=("", "gloo", "nccl"))
    model_ema: bool = option(False, "keep and evaluate a moving average of the weights")
    model_ema_force_cpu: bool = option(False, "keep the moving average on the CPU, and don't evaluate it")
    model_ema_decay: float = option(0.99996, "decay of the moving average", low=0, high=1)
    max_steps: int | None = _free(None, "stop after this number of optimizer steps", low=1)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """run, output, checkpoints"""

    config: str = option("", "recipe in YAML; the command line wins over it", "-c", saved=False, named="name a recipe")
    plugin: tuple[str, ...] | None = _free(
        None, "modules or .py files that register networks, neurons or data sets of your own", repeats=True
    )
    seed: int = option(42, "seed of everything random", low=0)
    device: str | None = _free(None, "cpu, cuda:1, or 1 for the second GPU (default: the best there is)")
    local_rank: int = option(
        0, "rank on this machine, from old launchers; torchrun's wins", "--local_rank", low=0, saved=False
    )
    output: str = _free("./output", "folder of all runs")
    experiment: str = _free("", "folder of this run in --output (default: from model, data set and options)")
    suffix: str = _free("", "text appended to the folder's name")
    tensorboard_dir: str = _free("./runs", "folder of the TensorBoard logs", empty=True)
    log_interval: int = _free(50, "batches between two lines of progress", low=1)
    recovery_interval: int = _free(0, "optimizer steps between two recovery checkpoints; 0: none", low=0)
    checkpoint_hist: int = _free(3, "epoch checkpoints that are kept", low=1)
    save_images: bool = _free(False, "write a picture of the first training batch, augmented but not mixed")
    eval_metric: str = option("top1", "what makes a checkpoint the best", choices=("top1", "top5", "loss"))
    resume: str = _free(
        "", "continue the run of this checkpoint or folder, exactly", named="name a checkpoint or the folder of a run"
    )
    no_resume_opt: bool = _free(False, "resume the weights only, with a fresh optimizer and schedule")
    eval: bool = _free(False, "only evaluate")
    eval_checkpoint: str = _free(
        "",
        "only evaluate the weights in this file",
        "--eval_checkpoint",
        named="name a checkpoint or the folder of a run",
    )
    use_ema: bool | None = _free(
        None,
        "read the moving average of a checkpoint's weights, wherever weights are read (default: where the file holds "
        "one that its best epoch was chosen by)",
    )


@dataclass(frozen=True, kw_only=True)
class AnalysisOptions:
    """figures after the last evaluation"""

    report: bool = _free(
        False, "all of the following that doesn't keep from training, and one HTML file of the run: report.html"
    )
    visualize: bool = _free(False, "pictures of spikes: raster, firing rates, maps, attention")
    spike_rate: bool = _free(False, "table of firing rates by layer")
    tsne: bool = _free(False, "PCA and t-SNE of the features")
    conf_mat: bool = _free(False, "confusion matrix")
    mem_dist: bool = _free(False, "distribution of the membrane potentials")
    analyze: bool = _free(False, "only measure operations and energy, layer by layer, on test data; don't train")
    doctor: bool = _free(
        False, "only look at one training step: rates, potentials, gradients, memory, time; don't train"
    )
    audit: bool = _free(False, "only tell what enters each layer, spikes or numbers, on test data; don't train")
    analyze_batches: int | None = _free(
        None, "batches that --analyze and --audit look at (default: all test data)", low=1
    )
    energy_method: str = _free("spikingformer", "published method of --analyze", choices=("spikingformer", "sdt"))
    energy_mac: float = _free(4.6, "pJ of a multiply-accumulate for --analyze", above=0)
    energy_ac: float = _free(0.9, "pJ of an accumulate for --analyze", above=0)
    energy_whole_as_spikes: bool = _free(
        False, "spikingformer: an input of whole numbers costs accumulates, a 2 as two spikes"
    )
    energy_pre_pool: bool = _free(False, "sdt: rates in front of a pooling, as in the papers, not behind it")
    energy_count_head: bool = _free(False, "sdt: count the classifier too")
    energy_first_once: bool = _free(False, "charge a repeated image's first layer once, not T times as published")


@dataclass(frozen=True, kw_only=True)
class AllOptions:
    """Hold every option, by group."""

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    neuron: NeuronOptions = field(default_factory=NeuronOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)
    sched: SchedOptions = field(default_factory=SchedOptions)
    aug: AugOptions = field(default_factory=AugOptions)
    mix: MixOptions = field(default_factory=MixOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    run: RunOptions = field(default_factory=RunOptions)
    analysis: AnalysisOptions = field(default_factory=AnalysisOptions)
    refused: RefusedOptions = field(default_factory=RefusedOptions)


GROUPS: dict[str, type] = {part.name: part.type for part in fields(AllOptions)}
