"""Declare every option of the command line: one documented field each, in frozen groups, without torch.

A field's name is the option's name with underscores (`batch_size` is `--batch-size`); its type, default, help text,
and the facts beside them (`fields.py`) are all that the parser, the recipes, the checks and the runs know about it.
`None` means that the data set or the model decides.
"""

from dataclasses import dataclass, field, fields
from functools import partial

from .fields import Entry, entries, option

__all__ = ["ENTRIES", "GROUPS", "AllOptions"]

_event = partial(option, kinds=("event",))
_image = partial(option, kinds=("image",))
_planar = partial(option, kinds=("event", "image"))  # needs height and width
_sourced = partial(option, needs="dataset_source")
_taught = partial(option, needs="teacher")
_masked = partial(option, needs="pretrain")
_converting = partial(option, needs="convert")
_tasked = partial(option, needs="task")
_free = partial(option, numbers=False)
_searched = partial(option, numbers=False, saved=False)
_RESIZING = ("nearest", "bilinear", "bicubic", "lanczos")
_RUN = "a checkpoint or the folder of a run"


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """data"""

    dataset: str = option("dvsc10", "name of the data set (--data-info lists all)")
    data_dir: str = _free("./data", "folder that holds the data sets")
    dataset_source: str = option("", "read imnet by timm: {wds,hfds,hfids,tfds,torch}/NAME", named="a source")
    train_split: str = _sourced("train", "training split of --dataset-source, or its shards: x-{000..127}.tar|100000")
    val_split: str = _sourced("validation", "evaluation split of --dataset-source, or its shards")
    train_num_samples: int | None = _sourced(None, "samples of a streamed --train-split that has no count", low=1)
    val_num_samples: int | None = _sourced(None, "samples of a streamed --val-split that has no count", low=1)
    class_map: str | None = _sourced(None, "file with the classes of --dataset-source in the order of the labels")
    input_key: str | None = _sourced(None, "field of the picture in --dataset-source (default: timm's)")
    target_key: str | None = _sourced(None, "field of the label in --dataset-source (default: timm's)")
    download: bool = _free(False, "download a missing data set into --data-dir")
    cache_dir: str | None = _event(None, "folder of cached event frames (default: in --data-dir)", numbers=False)
    no_cache: bool = _event(False, "write no cache; read the recordings again in every epoch", numbers=False)
    max_pixels: int = _image(178_956_970, "refuse photos with more pixels than this", low=1, numbers=False)
    num_classes: int | None = option(None, "outputs of the classifier (default: the data set's classes)", low=1)
    img_size: int | None = _image(None, "side of images (default: the data set's or the model's)", low=1, high=16_384)
    event_size: int | None = _event(
        None, "side of event frames (default: the smaller of the sensor's and the network's)", low=1, high=4096
    )
    crop_pct: float | None = _image(None, "share of a side that the centre crop keeps in evaluation", low=0.1, high=1)
    mean: tuple[float, ...] | None = _image(None, "mean of each channel (default: the set's)")
    std: tuple[float, ...] | None = _image(None, "standard deviation of each channel (default: the set's)", above=0)
    interpolation: str | None = _image(None, "how to resize in evaluation (default: bicubic)", choices=_RESIZING)
    train_portion: float = option(0.9, "share of training samples, if a set has no test split", above=0, high=1)
    split: str | None = option(
        None, "how to split a set without a test split: text (by file name), tebn (as TEBN), random or stratified (by "
        "--split-seed) (default: the set's first); valid: evaluate on ssc's validation samples",
        choices=("text", "tebn", "random", "stratified", "valid"),
    )  # fmt: skip
    split_seed: int = option(0, "seed of random and stratified splits; --seed doesn't change a split", low=0)
    frames_by: str = _event("number", "cut recordings by number of events or by time", choices=("number", "time"))
    remainder: str = _event("last", "add left-over events to the last frame, or drop them", choices=("last", "drop"))
    frames: str = _event(
        "count", "event counts, signed voxel grids, or time surfaces", choices=("count", "voxel", "surface")
    )
    surface_tau: float = _event(50_000.0, "time constant of --frames surface in microseconds", above=0)
    clip_counts: int | None = _event(None, "largest count of one pixel in a frame; 1: binary frames", low=1)
    event_resize: str = _event("area", "how to resize; BrainCog's bilinear loses events", choices=("area", "bilinear"))
    frame_norm: str = _event("none", "divide a sample by its largest value or mean", choices=("none", "max", "mean"))
    skip_bad: bool = _event(False, "leave out event recordings that can't be read, and list them")
    merge_polarity: bool = _event(False, "count events of both polarities together: frames of one channel")
    polarity_sum: bool = _event(False, "append the sum of both polarities to event frames as a third channel")
    label_order: str = _event(
        "number", "text: the labels of SpikingJelly's dvsg, or BrainCog's bullying10k", choices=("number", "text")
    )
    batch_size: int = option(128, "training samples in each process and forward pass", "-b", low=1)
    validation_batch_size_multiplier: int = option(1, "evaluation batch, in training batches", "-vb", low=1)
    workers: int | None = _free(None, "loading processes (default: as many as cores, up to 8)", "-j", low=0, high=1024)
    pin_mem: bool = _free(False, "load into page-locked memory, for faster copies to a GPU")
    no_prefetcher: bool = _free(False, "don't copy the next batch to the GPU in advance")
    use_multi_epochs_loader: bool = _free(False, "keep the loading processes from epoch to epoch")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """model"""

    model: str = option("spikformer", "name of the network (--list-models lists all)")
    pretrained: bool = _free(False, "start from the published weights, if the model has a source for them")
    initial_checkpoint: str = _free("", "start from the weights in this file, official or ours", named="a checkpoint")
    step: int | None = option(None, "number of time steps T (default: the model's; 32 with --convert)", low=1)
    encode: str = _image("direct", "how an image becomes T inputs", choices=("direct", "rate", "ttfs", "phase"))
    layer_by_layer: bool = option(True, "compute all steps of a layer at once, not the network step by step")
    temporal_flatten: bool = _event(False, "fold time into the channels: a network of one step on event data")
    rand_step: bool = option(False, "train each batch with a random number of steps from 1 to T")
    drop: float | None = option(None, "dropout rate (default: the model's)", low=0, high=1)
    drop_path: float | None = option(None, "stochastic depth rate (default: the model's)", low=0, high=1)
    bn_tf: bool = option(False, "TensorFlow's momentum and epsilon in every batch norm")
    bn_momentum: float | None = option(None, "momentum of every batch norm (default: the model's)", low=0, high=1)
    bn_eps: float | None = option(None, "epsilon of every batch norm (default: the model's)", above=0)
    distilled: bool = option(False, "add the head that learns from a --teacher, if the model has one")
    as_released: bool = option(False, "keep the faults of the released code, if the model has any")
    model_kwargs: tuple[str, ...] | None = option(None, "further arguments of the network: depth=2 mlp_ratio=4.0")
    grad_checkpointing: bool = option(False, "recompute activations in the backward pass, to save memory")
    pack_spikes: bool = _free(True, "keep spikes for the backward pass as bits: less memory, the same numbers")
    integer_products: bool = _free(True, "compute float32 products of spikes in 8-bit integers, on processors with AMX")


@dataclass(frozen=True, kw_only=True)
class NeuronOptions:
    """neurons (default: as in the model's paper)"""

    node_type: str | None = option(None, "class of every neuron: LIFNode, PLIFNode, IFNode, ILIFNode, ...")
    act_fun: str | None = option(None, "surrogate gradient: SigmoidGrad, AtanGrad, GateGrad, QGateGrad, ...")
    alpha: float | None = option(None, "steepness of the surrogate gradient", above=0)
    threshold: float | None = option(None, "firing threshold", above=0)
    tau: float | None = option(None, "membrane time constant in steps", low=1)
    requires_thres_grad: bool = option(False, "learn the thresholds")
    sigmoid_thres: bool = option(False, "keep learnt thresholds in (0, 1) by a sigmoid")
    levels: int | None = option(None, "ILIFNode: largest whole number D that a step fires", low=1, high=255)
    norm: float | None = option(None, "ILIFNode: divisor of what it fires (default: D; 1: whole numbers)", above=0)
    rounding: str | None = option(None, "ILIFNode: round halves to even, or up", choices=("even", "up"))


@dataclass(frozen=True, kw_only=True)
class OptimOptions:
    """optimizer"""

    opt: str = option("adamw", "name of a timm optimizer")
    opt_eps: float | None = option(1e-8, "epsilon of the optimizer", above=0)
    opt_betas: tuple[float, ...] | None = option(None, "betas of the optimizer", low=0, high=0.999999)
    opt_kwargs: tuple[str, ...] | None = option(None, "further arguments of the optimizer: trust_clip=True")
    momentum: float = option(0.9, "momentum of the optimizer", low=0, high=1)
    weight_decay: float = option(1e-4, "weight decay, except for biases and norms", low=0)
    layer_decay: float | None = option(
        None, "learning rate of each block over that of the next, up to the classifier's", above=0, high=1
    )
    clip_grad: float | None = option(None, "largest norm of the gradient (default: no clipping)", above=0)
    grad_accum: int = option(1, "forward passes whose gradients make one optimizer step", low=1)
    noisy_grad: float = option(0.0, "standard deviation of Gaussian noise added to gradients", low=0)


@dataclass(frozen=True, kw_only=True)
class SchedOptions:
    """learning rate"""

    lr: float = option(5e-3, "learning rate for a batch of --lr-base-size samples", above=0)
    lr_base_size: int = option(
        1024, "lr is multiplied by (batch size x processes x grad accum) / this number; 0: lr as given. warmup-lr and "
        "min-lr stay as given", low=0,
    )  # fmt: skip
    sched: str = option("cosine", "schedule", choices=("cosine", "tanh", "step", "plateau", "poly"))
    lr_noise: tuple[float, ...] | None = option(
        None, "start (and end) of noise on the rate, in shares of the epochs", low=0, count=(1, 2)
    )
    lr_noise_pct: float = option(0.67, "limit of the noise, as a share of the rate", above=0, high=1)
    lr_noise_std: float = option(1.0, "standard deviation of the noise", low=0)
    lr_cycle_mul: float = option(1.0, "length of a cosine cycle, in lengths of the one before", above=0)
    lr_cycle_limit: int = option(1, "number of cosine cycles", low=1)
    warmup_lr: float = option(1e-6, "learning rate at the start of the warm-up", low=0)
    min_lr: float = option(1e-5, "lowest learning rate", low=0)
    epochs: int = option(400, "epochs of the schedule, without the cool-down", low=1)
    start_epoch: int | None = option(None, "first epoch (default: 0, or where the checkpoint stopped)", low=0)
    decay_epochs: float = option(30.0, "epochs between two drops of the step schedule", above=0)
    warmup_epochs: int = option(5, "epochs of warm-up", low=0)
    warmup_prefix: bool = option(False, "add the warm-up before --epochs")
    sched_on_updates: bool = option(False, "change the rate with every optimizer step, not with every epoch")
    cooldown_epochs: int = option(10, "epochs at the lowest rate, after the schedule", low=0)
    patience_epochs: int = option(10, "epochs without progress before the plateau schedule lowers the rate", low=0)
    decay_rate: float = option(0.1, "factor of the rate at a drop of the step and plateau schedules", "--dr", above=0)
    power: float = option(1.0, "exponent of the poly schedule", above=0)


@dataclass(frozen=True, kw_only=True)
class AugOptions:
    """augmentation (default: the data set's; for imnet, timm's)"""

    no_aug: bool = option(False, "no augmentation; the other options here have no effect")
    scale: tuple[float, ...] | None = _image(None, "share of the area in a random crop", above=0, high=1, count=(2,))
    ratio: tuple[float, ...] | None = _image(None, "aspect ratio of a random crop", above=0, count=(2,))
    hflip: float | None = _planar(None, "chance of a horizontal flip", low=0, high=1)
    vflip: float | None = _planar(None, "chance of a vertical flip", low=0, high=1)
    color_jitter: float | None = _image(None, "strength of colour jitter; no effect with --aa", low=0)
    aa: str | None = _image(None, "AutoAugment: timm's policy, or spikformer-m9-n1-mstd0.4-inc1; none: off", empty=True)
    reprob: float | None = _image(None, "chance of random erasing", low=0, high=1)
    remode: str | None = _image(None, "how to fill erased areas", choices=("const", "rand", "pixel"))
    recount: int | None = _image(None, "number of erased areas", low=1, high=1000)
    aug_repeats: int = _image(0, "augmented copies of each image; an epoch has fewer images", low=0, high=1000)
    train_interpolation: str | None = _image(None, "how to resize in training", choices=("random", *_RESIZING))
    event_augment: tuple[str, ...] | None = _event(
        None, "augmentations in this order: snn_wide (Spikformer; snn_wide_sdt: without erasing), crop (BrainCog), "
        "resformer (SpikingResformer), roll (OST, TET; roll_flip: with a flip), event_drop (EventDrop; drop_*: its "
        "parts), and simple ones",
        choices=(
            *("none", "snn_wide", "snn_wide_sdt", "crop", "resformer", "roll", "roll_flip", "rotate", "shear"),
            *("cutout", "event_drop", "drop_time", "drop_area", "drop_random"),
        ),
    )  # fmt: skip
    rand_aug: bool = _event(False, "RandAugment on event frames")
    randaug_n: int = option(3, "operations of --rand-aug on each sample", low=1, high=1000)
    randaug_m: int = option(15, "strength of --rand-aug, from 0 to 30", low=0, high=30)


@dataclass(frozen=True, kw_only=True)
class MixOptions:
    """mixing of samples"""

    mixup: float = option(0.0, "alpha of mixup; 0: off", low=0)
    cutmix: float = _planar(0.0, "alpha of cutmix; 0: off", low=0)
    cutmix_minmax: tuple[float, ...] | None = _planar(
        None, "smallest and largest share of a cutmix box; turns cutmix on", low=0, high=1, count=(2,)
    )
    mixup_prob: float = option(0.0, "chance that --mixup or --cutmix mixes a batch", low=0, high=1)
    mixup_switch_prob: float = option(0.5, "chance of cutmix, if both are on", low=0, high=1)
    mixup_mode: str = option("batch", "one mix for each batch, pair or element", choices=("batch", "pair", "elem"))
    mixup_off_epoch: int = option(0, "stop mixing at this epoch; 0: never", low=0)
    mix_up: bool = _event(False, "BrainCog's MixUp of event samples")
    cut_mix: bool = _event(False, "BrainCog's CutMix of event samples, after --mix-up")
    event_mix: bool = _event(False, "BrainCog's EventMix of event samples, after --mix-up and --cut-mix")
    cutmix_beta: float = option(2.0, "Beta distribution of the event mixers", above=0)
    cutmix_prob: float = option(0.5, "chance that an event sample is mixed", low=0, high=1)
    cutmix_num: int = option(1, "how many times an event sample is mixed", low=1, high=1000)
    cutmix_noise: float = option(0.0, "noise on the targets of mixed event samples", low=0, high=1)
    gaussian_n: int = option(3, "Gaussians in the mask of EventMix", low=1, high=1000)


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """loss, precision, distribution"""

    loss_fn: str = option("ce", "cross entropy, squared error or binary cross entropy", choices=("ce", "mse", "bce"))
    smoothing: float = option(0.1, "label smoothing", low=0, high=1)
    tet_loss: bool = option(False, "temporal efficient training (TET): the mean of the losses at all steps")
    tet_lambda: float = option(0.0, "share of TET's squared distance to --tet-means", low=0, high=1)
    tet_means: float = option(1.0, "target of TET's squared distance")
    teacher: str = _image(
        "", "timm model from which the network learns (distillation); source: that of --convert",
        named="a model of timm's",
    )  # fmt: skip
    teacher_checkpoint: str = _taught("", "weights of --teacher (default: timm downloads them)", named="a checkpoint")
    distill: str = _taught("hard", "learn the teacher's class, or its distribution", choices=("hard", "soft"))
    distill_alpha: float = _taught(0.5, "share of the teacher in the loss", low=0, high=1)
    distill_tau: float = _taught(1.0, "temperature of soft distillation", above=0)
    pretrain: str = _image("", "learn without labels: to predict the hidden patches of masked pictures",
                           choices=("", "masked"))  # fmt: skip
    mask_ratio: float = _masked(0.5, "share of the patches that --pretrain masked hides", above=0, high=0.99)
    decoder_dim: int = _masked(256, "width of the decoder, a multiple of 4 and of its heads", low=4, high=65_536)
    decoder_depth: int = _masked(4, "blocks of the decoder", low=1, high=1000)
    decoder_heads: int = _masked(4, "attention heads of the decoder", low=1, high=65_536)
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

    config: str = option("", "recipe in YAML; the command line overrides it", "-c", saved=False, named="a recipe")
    plugin: tuple[str, ...] | None = _free(
        None, "modules or .py files that register your own networks, neurons or data sets", repeats=True
    )
    seed: int = option(42, "seed of everything random", low=0)
    device: str | None = _free(None, "cpu, cuda:1, or 1 for the second GPU (default: a GPU if there is one)")
    local_rank: int = option(0, "rank on this machine, for old launchers (torchrun sets it itself)", low=0, saved=False)
    output: str = _free("./output", "folder of all runs")
    experiment: str = _free("", "folder of this run in --output (default: from model, data set and options)")
    suffix: str = _free("", "text appended to the folder's name")
    tensorboard_dir: str = _free("./runs", "folder of the TensorBoard logs; empty: none", empty=True)
    log_interval: int = _free(50, "batches between two lines of progress", low=1)
    recovery_interval: int = _free(0, "optimizer steps between two recovery checkpoints; 0: none", low=0)
    checkpoint_hist: int = _free(3, "how many epoch checkpoints are kept", low=1)
    save_images: bool = _free(False, "draw the first training batch, augmented but not mixed")
    eval_metric: str = option("top1", "metric of the best checkpoint", choices=("top1", "top5", "loss"))
    resume: str = _free("", "continue this run exactly: its folder or a checkpoint", named=_RUN)
    no_resume_opt: bool = _free(False, "resume the weights only, with a fresh optimizer and schedule")
    eval: bool = _free(False, "only evaluate")
    eval_checkpoint: str = _free("", "only evaluate the weights in this file", "--eval_checkpoint", named=_RUN)
    spiking_inference: bool = _free(
        False, "evaluate and analyse in binary planes instead of whole numbers (ILIFNode); the same outputs, slower"
    )
    use_ema: bool | None = _free(None, "read the moving average of a checkpoint (default: if it chose the best epoch)")


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """conversion of a trained network (--convert)"""

    convert: str = _image(
        "", "make a spiking network of --model, any trained classifier of timm's; figures are those of the result",
        choices=("", "qcfs", "sta", "spikezip", "rate"),
    )  # fmt: skip
    convert_kwargs: tuple[str, ...] | None = _converting(None, "options of the method: levels=16")
    calibration_batches: int = _converting(4, "batches of training data, not augmented, that calibrate it", low=1)
    allow_silent: bool = _converting(False, "convert although there are layers that never fire")
    calibrate_only: bool = _converting(False, "qcfs, spikezip: don't train the network that is converted")


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """tasks other than classification (--task)"""

    task: str = option(
        "", "track an object, estimate depth or pose, detect objects, segment pictures; alone, on a small scene that "
        "it generates", choices=("", "track", "depth", "pose", "detect", "segment"),
    )  # fmt: skip
    task_kwargs: tuple[str, ...] | None = _tasked(None, "options of the task: clip_length=8")
    detector: str = _tasked(
        "retinanet", "detect: torchvision's detector", choices=("retinanet", "fasterrcnn"), tasks=("detect",)
    )
    head_time: str = _tasked(
        "mean", "detect, segment: the head reads the mean of the features over time, or each step, and its outputs are "
        "averaged", choices=("mean", "each"), tasks=("detect", "segment"),
    )  # fmt: skip
    score_threshold: float = _tasked(
        0.3, "detect: least confidence of a box that is drawn and written; figures use all boxes", low=0, high=1,
        numbers=False, tasks=("detect",),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AnalysisOptions:
    """figures after the last evaluation"""

    report: bool = _free(False, "all figures below but --doctor, and one HTML page of the run: report.html")
    visualize: bool = _free(False, "pictures of spikes: raster, firing rates, maps, attention")
    spike_rate: bool = _free(False, "table of firing rates, layer by layer")
    tsne: bool = _free(False, "PCA and t-SNE of the features")
    conf_mat: bool = _free(False, "confusion matrix")
    mem_dist: bool = _free(False, "distribution of the membrane potentials")
    analyze: bool = _free(False, "don't train; measure operations and energy of each layer on test data")
    doctor: bool = _free(False, "don't train; check one training step: rates, potentials, gradients, memory, time")
    audit: bool = _free(False, "don't train; say whether spikes or other numbers enter each layer, on test data")
    analyze_batches: int | None = _free(None, "batches of --analyze and --audit (default: all test data)", low=1)
    energy_method: str = _free("spikingformer", "published method of --analyze", choices=("spikingformer", "sdt"))
    energy_mac: float = _free(4.6, "pJ of a multiply-accumulate for --analyze", above=0)
    energy_ac: float = _free(0.9, "pJ of an accumulate for --analyze", above=0)
    energy_whole_as_spikes: bool = _free(False, "spikingformer: whole numbers cost accumulates, a 2 as two spikes")
    energy_pre_pool: bool = _free(False, "sdt: take rates before a pooling, as in the papers, not after it")
    energy_count_head: bool = _free(False, "sdt: count the classifier too")
    energy_first_once: bool = _free(False, "count the first layer of a repeated image once, not T times as published")


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """search for an architecture (--search)"""

    search_space: str = _searched("small", "what is searched", choices=("tiny", "small", "base"))
    search_params: tuple[float, ...] | None = _searched(
        None, "smallest and largest number of parameters in millions (default: 11 12)", above=0, count=(2,)
    )
    search_dims: tuple[int, ...] | None = _searched(None, "widths, in place of the space's", low=1)
    search_depths: tuple[int, ...] | None = _searched(None, "numbers of blocks, in place of the space's", low=1)
    search_ratios: tuple[float, ...] | None = _searched(None, "MLP ratios, in place of the space's", above=0)
    search_heads: tuple[int, ...] | None = _searched(None, "numbers of heads, in place of the space's", low=1)
    search_patch: int = _searched(4, "side of a token in pixels: 1, 2, 4, 8 or 16", low=1)
    search_population: int = _searched(50, "candidates of a generation", low=1, high=100_000)
    search_generations: int = _searched(20, "number of generations", low=1, high=100_000)
    search_top_k: int = _searched(10, "the best so far, which become parents", low=1, high=100_000)
    search_mutations: int = _searched(25, "mutations in a generation", low=0, high=100_000)
    search_crossovers: int = _searched(25, "crossovers in a generation", low=0, high=100_000)
    search_layer_prob: float = _searched(0.2, "chance that a mutation changes a block's ratio or heads", low=0, high=1)
    search_size_prob: float = _searched(0.4, "chance that a mutation changes the depth or the width", low=0, high=1)
    search_results: int = _searched(10, "rows of the table", low=1, high=100_000)
    search_file: str = _searched("", "write the table to this .yaml or .json file too", named="a file")


_OTHER = "belongs to other models of BrainCog; no transformer has it"
_COPIES = "the loaders make one view of each image, as in every published recipe of the zoo"


def _refused(default: object, reason: str) -> object:
    return option(default, reason, saved=False, refused=reason)


@dataclass(frozen=True, kw_only=True)
class RefusedOptions:
    """options of BrainCog that take only their defaults, and why"""

    gp: str | None = _refused(None, "spiking transformers average over tokens; there is no pooling to choose")
    adam_epoch: int = _refused(1000, "the optimizer is never switched; choose one with --opt")
    newton_maxiter: int = _refused(20, _OTHER)
    kernel_method: str = _refused("cuda", "the fastest kernel for the device is chosen by itself")
    conv_type: str = _refused("normal", _OTHER)
    sew_cnf: str = _refused("ADD", _OTHER)
    adaptive_node: bool = _refused(False, _OTHER)
    critical_loss: bool = _refused(False, _OTHER)
    n_groups: int = _refused(1, _OTHER)
    n_encode_type: str = _refused("linear", "the learnt encoder belongs to other models of BrainCog; use --encode")
    n_preact: bool = _refused(False, _OTHER)
    spike_output: bool = _refused(False, "transformers end in a linear head, not in output neurons")
    apex_amp: bool = _refused(False, "apex is no longer maintained; use --amp")
    drop_block: float | None = _refused(None, "no transformer has DropBlock; use --drop-path")
    drop_connect: float | None = _refused(None, "the old name of --drop-path; use that")
    reset_drop: bool = _refused(False, "the drop rate stays as --drop-path sets it")
    node_resume: str = _refused("", "neurons are saved with the network; use --resume or --initial-checkpoint")
    num_gpu: int = _refused(1, "torchrun --nproc_per_node sets the number of processes")
    tta: int = _refused(0, "evaluation sees each sample once, as for the published accuracies")
    aug_splits: int = _refused(0, _COPIES)
    jsd: bool = _refused(False, _COPIES)
    split_bn: bool = _refused(False, _COPIES)
    resplit: bool = _refused(False, _COPIES)
    adaptation_info: bool = _refused(False, "describes adaptive neurons, which no transformer has")


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
    convert: ConvertOptions = field(default_factory=ConvertOptions)
    task: TaskOptions = field(default_factory=TaskOptions)
    analysis: AnalysisOptions = field(default_factory=AnalysisOptions)
    search: SearchOptions = field(default_factory=SearchOptions)
    refused: RefusedOptions = field(default_factory=RefusedOptions)


GROUPS: dict[str, type] = {part.name: part.type for part in fields(AllOptions)}
ENTRIES: dict[str, Entry] = entries(GROUPS)
