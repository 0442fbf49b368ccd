"""The options: BrainCog's set and defaults, refusals, ranges, precedence, round trip."""

from dataclasses import fields

import pytest
import yaml

from braincog_transformers.cli import resolve
from braincog_transformers.cli.parser import build_parser
from braincog_transformers.data import DATASETS
from braincog_transformers.errors import UserError
from braincog_transformers.recipe import ENTRIES, GROUPS, Options, keywords
from braincog_transformers.recipe.fields import FACTS, option
from braincog_transformers.training.train import FREE

# Every option of BrainCog's examples/Spiking-Transformers/main.py at commit 3998fd5: spellings, type, default.
BRAINCOG = """
-c --config str ''; --dataset str dvsc10; --model str spikformer; --pretrained flag; --initial-checkpoint str '';
--resume str ''; --eval_checkpoint str ''; --no-resume-opt flag; --num-classes int 10; --gp str None;
--img-size int 224; --crop-pct float None; --mean floats None; --std floats None; --interpolation str '';
-b --batch-size int 128; -vb --validation-batch-size-multiplier int 1; --opt str adamw; --opt-eps float 1e-08;
--opt-betas floats None; --momentum float 0.9; --weight-decay float 0.0001; --clip-grad float None;
--adam-epoch int 1000; --sched str cosine; --lr float 0.005; --lr-noise floats None; --lr-noise-pct float 0.67;
--lr-noise-std float 1.0; --lr-cycle-mul float 1.0; --lr-cycle-limit int 1; --warmup-lr float 1e-06;
--min-lr float 1e-05; --epochs int 400; --start-epoch int None; --decay-epochs float 30; --warmup-epochs int 5;
--cooldown-epochs int 10; --patience-epochs int 10; --decay-rate --dr float 0.1; --power int 1; --no-aug flag;
--scale floats 0.08,1.0; --ratio floats 0.75,1.3333333333333333; --hflip float 0.5; --vflip float 0.0;
--color-jitter float 0.4; --aa str rand-m9-mstd0.5-inc1; --aug-splits int 0; --jsd flag; --reprob float 0.25;
--remode str pixel; --recount int 1; --resplit flag; --mixup float 0.0; --cutmix float 0.0;
--cutmix-minmax floats None; --mixup-prob float 0.0; --mixup-switch-prob float 0.5; --mixup-mode str batch;
--mixup-off-epoch int 0; --smoothing float 0.1; --train-interpolation str random; --drop float 0.0;
--drop-connect float None; --drop-path float 0.1; --drop-block float None; --newton-maxiter int 20;
--reset-drop flag; --kernel-method str cuda; --bn-tf flag; --bn-momentum float None; --bn-eps float None;
--sync-bn flag; --dist-bn str ''; --split-bn flag; --model-ema flag; --model-ema-force-cpu flag;
--model-ema-decay float 0.99996; --seed int 42; --log-interval int 50; --recovery-interval int 0; -j --workers int 8;
--num-gpu int 1; --save-images flag; --amp flag; --apex-amp flag; --native-amp flag; --channels-last flag;
--pin-mem flag; --no-prefetcher flag; --output str (the author's folder); --tensorboard-dir str ./runs;
--eval-metric str top1; --tta int 0; --local_rank int 0; --use-multi-epochs-loader flag; --eval flag; --device int 0;
--step int 10; --encode str direct; --temporal-flatten flag; --adaptive-node flag; --critical-loss flag;
--conv-type str normal; --sew-cnf str ADD; --rand-step flag; --node-type str LIFNode; --act-fun str QGateGrad;
--threshold float 0.5; --tau float 2.0; --requires-thres-grad flag; --sigmoid-thres flag; --loss-fn str ce;
--noisy-grad float 0.0; --spike-output flag; --n_groups int 1; --n-encode-type str linear; --n-preact flag;
--layer-by-layer flag; --tet-loss flag; --mix-up flag; --cut-mix flag; --event-mix flag; --cutmix_beta float 2.0;
--cutmix_prob float 0.5; --cutmix_num int 1; --cutmix_noise float 0.0; --gaussian-n int 3; --rand-aug flag;
--randaug_n int 3; --randaug_m int 15; --train-portion float 0.9; --event-size int 48; --node-resume str '';
--visualize flag; --spike-rate flag; --tsne flag; --conf-mat flag; --mem-dist flag; --adaptation-info flag;
--suffix str ''
"""
REFUSED = {name: entry.metadata["refused"] for name, entry in ENTRIES.items() if entry.metadata["refused"]}
KINDS = {"str": str, "int": int, "float": float, "floats": float, "flag": bool}

# What differs here, by option: our type and default, and why.
DATA_DECIDES = "the data set decides"
MODEL_DECIDES = "the model's paper decides; there the option never reached the transformers"
DEVIATIONS = {
    "num_classes": (int, None, DATA_DECIDES),
    "img_size": (int, None, DATA_DECIDES),
    "event_size": (int, None, DATA_DECIDES),
    "interpolation": (str, None, DATA_DECIDES),
    "scale": (float, None, DATA_DECIDES),
    "ratio": (float, None, DATA_DECIDES),
    "hflip": (float, None, DATA_DECIDES),
    "vflip": (float, None, DATA_DECIDES),
    "color_jitter": (float, None, DATA_DECIDES),
    "aa": (str, None, DATA_DECIDES),
    "reprob": (float, None, DATA_DECIDES),
    "remode": (str, None, DATA_DECIDES),
    "recount": (int, None, DATA_DECIDES),
    "train_interpolation": (str, None, DATA_DECIDES),
    "step": (int, None, MODEL_DECIDES),
    "drop": (float, None, MODEL_DECIDES),
    "drop_path": (float, None, MODEL_DECIDES),
    "node_type": (str, None, MODEL_DECIDES),
    "act_fun": (str, None, MODEL_DECIDES),
    "threshold": (float, None, MODEL_DECIDES),
    "tau": (float, None, MODEL_DECIDES),
    "layer_by_layer": (bool, True, "the transformers work on all steps at once"),
    "workers": (int, None, "as many as the machine has cores, at most the 8 of there"),
    "device": (str, None, "the best device there is; takes cpu and cuda:1 beside a number"),
    "output": (str, "./output", "there it is a folder of its author"),
    "power": (float, 1.0, "exponents such as 0.9 are usual"),
    "native_amp": (bool, False, "a second name of --amp"),
}


def braincog_options():
    """Parse the table into (spellings, field name, kind, default)."""
    for text in BRAINCOG.replace("\n", " ").split("; "):
        words = text.split()
        spellings = [word for word in words if word.startswith("-")]
        kind, default = [*words[len(spellings) :], "False"][:2]
        name = next(word for word in spellings if word.startswith("--")).strip("-").replace("-", "_")
        convert = KINDS[kind]
        if default == "None":
            value = None
        elif kind == "flag":
            value = False
        elif kind == "floats":
            value = tuple(map(float, default.split(",")))
        else:
            value = convert("" if default == "''" else default)
        yield pytest.param(spellings, name, convert, value, id=name)


def parsed(*argv):
    """Resolve a command line for a data set of either kind."""
    return resolve(["--dataset", "digits", *argv])


def test_the_table_holds_all_options_of_braincog():
    assert len(list(braincog_options())) == 142


@pytest.mark.parametrize(("spellings", "name", "kind", "default"), list(braincog_options()))
def test_braincogs_option_is_known_with_its_type_and_default(spellings, name, kind, default):
    known = {spelling.replace("_", "-") for spelling in build_parser()._option_string_actions}
    assert {spelling.replace("_", "-") for spelling in spellings} <= known
    entry = ENTRIES["amp" if name == "native_amp" else name]
    if name in DEVIATIONS:
        kind, default, reason = DEVIATIONS[name]
        assert reason
    assert (entry.kind, entry.default) == (kind, default)


def test_each_option_lives_in_one_group_and_says_what_it_does():
    names = [field.name for group in GROUPS.values() for field in fields(group)]
    assert len(names) == len(set(names)) == len(ENTRIES)
    assert all(len(entry.metadata["help"]) > 7 for entry in ENTRIES.values())


def test_each_option_is_declared_with_all_facts():
    kinds = {info.kind for info in DATASETS.values()}
    for entry in ENTRIES.values():
        assert set(entry.metadata) == {*FACTS, "help"}, entry.name
        assert kinds.issuperset(entry.metadata["kinds"]), entry.name
        assert entry.metadata["needs"] in ("", *ENTRIES), entry.name
    with pytest.raises(TypeError, match=r"unexpected facts: kind$"):
        option(1, "a misspelt fact", kind="event")


def test_what_a_run_may_be_resumed_with_is_what_changes_no_number():
    """A new option changes numbers unless it says otherwise; one that does not is added here."""
    free = """
    audit analyze analyze_batches cache_dir checkpoint_hist conf_mat data_dir device dist_backend doctor download
    energy_ac energy_count_head energy_first_once energy_mac energy_method energy_pre_pool energy_whole_as_spikes eval
    eval_checkpoint experiment initial_checkpoint integer_products log_interval max_pixels max_steps mem_dist no_cache
    no_prefetcher no_resume_opt output pack_spikes pin_mem plugin pretrained recovery_interval report resume save_images
    search_crossovers search_depths search_dims search_file search_generations search_heads search_layer_prob
    score_threshold search_mutations search_params search_patch search_population search_ratios search_results
    search_size_prob
    search_space search_top_k spike_rate spiking_inference suffix tensorboard_dir tsne use_ema use_multi_epochs_loader
    visualize workers
    """
    assert set(free.split()) == FREE


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_refused_option_is_refused_with_its_reason(name):
    value = {bool: True, int: 7, float: 0.5, str: "x"}[ENTRIES[name].kind]
    with pytest.raises(UserError) as caught:
        Options.from_dict({name: value})
    assert str(caught.value) == f"{ENTRIES[name].flag} is refused: {REFUSED[name]}"
    assert Options.from_dict({name: ENTRIES[name].default}) == Options()


def test_the_refused_group_and_its_reasons_agree():
    assert {entry.name for entry in ENTRIES.values() if entry.group == "refused"} == set(REFUSED)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--step", "0"], "--step must be at least 1; got 0"),
        (["--lr", "0"], "--lr must be above 0; got 0.0"),
        (["--lr", "nan"], "--lr must be finite; got nan"),
        (["--hflip", "1.5"], "--hflip must be at most 1; got 1.5"),
        (["--epochs", "2.5"], "--epochs needs a whole number; got '2.5'"),
        (["--encode", "raet"], "--encode must be one of direct, rate, ttfs, phase; got 'raet'"),
        (["--scale", "1"], "--scale needs 2 values; got 1"),
        (["--scale", "1", "0.5"], "--scale needs the smaller value first; got 1.0 0.5"),
        (["--aa", "rnad-m9"], "unknown --aa policy 'rnad-m9'; did you mean rand?"),
        (["--mixup", "0.5"], "--mixup and --cutmix have no effect while --mixup-prob is 0; give --mixup-prob 1"),
        (["--eval"], "--eval needs weights: --eval_checkpoint, --resume, --initial-checkpoint or --pretrained"),
        (
            ["--dataset", "ndigits", "--mix-up", "--event-mix", "--mixup", "0.5", "--mixup-prob", "1"],
            "--mix-up, --event-mix: mixes what --mixup/--cutmix has mixed; give one of the two kinds",
        ),
        (
            ["--dataset", "ndigits", "--event-augment", "crop", "none"],
            "--event-augment none excludes others; got crop none",
        ),
        (
            ["--dataset", "dvsc10", "--split-seed", "1"],
            "--split-seed: split text has no seed; choose --split random or stratified, or leave it out",
        ),
        (["--split-seed", "1"], "--split-seed: digits has its own test split; leave it out"),
        (["--dataset", "shd", "--split", "valid"], "--split valid: shd has no validation split; leave it out"),
        (["--dataset", "dvsc10", "--split", "valid"], "--split valid: dvsc10 has no validation split; leave it out"),
        (["--dataset", "ssc", "--split", "text"], "--split: ssc has its own test split; leave it out"),
        (
            ["--dataset", "ssc", "--split", "valid", "--train-portion", "0.5"],
            "--train-portion: ssc has its own test split; leave it out",
        ),
        (
            ["--aug-repeats", "3", "--no-aug"],
            "--aug-repeats would repeat the same picture under --no-aug; give one of them",
        ),
        (
            ["--dataset", "ndigits", "--aug-repeats", "3"],
            "--aug-repeats: for image data only; ndigits holds event data",
        ),
        (
            ["--dataset", "ndigits", "--tet-loss", "--temporal-flatten"],
            "--tet-loss needs the outputs of all steps, and --temporal-flatten leaves one step",
        ),
        (
            ["--dataset", "ndigits", "--rand-step", "--temporal-flatten"],
            "--temporal-flatten leaves one step, so that --rand-step has nothing to choose",
        ),
        (
            ["--local_rank", "1"],
            "--local_rank 1 needs a launcher that sets LOCAL_RANK; start with torchrun and leave the option out",
        ),
        (["--distill", "soft"], "--distill: without effect as long as no --teacher is named"),
        (
            ["--teacher", "resnet10t", "--distill-tau", "2"],
            "--distill-tau is the temperature of --distill soft; hard distillation has none",
        ),
        (
            ["--teacher", "resnet10t", "--encode", "rate"],
            "--teacher sees the network's own batch, which --encode rate leaves unnormalised",
        ),
        (
            ["--dataset", "ndigits", "--teacher", "resnet10t"],
            "--teacher: for image data only; ndigits holds event data",
        ),
        (["--model-kwargs", "depth"], "--model-kwargs takes KEY=VALUE; got 'depth'"),
        (["--device", "gpu"], "--device takes cpu, cuda, cuda:1, or the number of a GPU; got 'gpu'"),
        (["--opt-betas", "0.9", "1"], "--opt-betas must be at most 0.999999; got 1.0"),
        (["--batch-size"], "-b/--batch-size: expected one argument"),
        (["stray"], "argument 'stray' belongs to no option"),
        (["--rand-aug"], "--rand-aug: for event data only; digits holds image data"),
        (
            ["--dataset", "ndigits", "--frames", "surface", "--surface-tau", "1e4", "--clip-counts", "1"],
            "--clip-counts: for counts of events only, which --frames surface does not hold; leave it out",
        ),
        (
            ["--clip-counts", "1", "--event-resize", "bilinear", "--frame-norm", "max", "--skip-bad"],
            "--clip-counts, --event-resize, --frame-norm, --skip-bad: for event data only; digits holds image data",
        ),
        (
            ["--dataset", "ndigits", "--frames", "voxel", "--frames-by", "time", "--event-mix"],
            "--frames-by, --event-mix: for counts of events only, which --frames voxel does not hold; leave it out",
        ),
        (
            ["--dataset", "ndigits", "--surface-tau", "1e4"],
            "--surface-tau: belongs to --frames surface; leave it out",
        ),
        (
            ["--dataset", "ndigits", "--frames", "voxel", "--polarity-sum"],
            "--polarity-sum: --frames voxel has one channel, in which the polarity is the sign; leave it out",
        ),
        (
            ["--dataset", "ndigits", "--merge-polarity", "--polarity-sum"],
            "--polarity-sum appends to two polarities, and --merge-polarity leaves one; give one of them",
        ),
        (["--clip-counts", "0"], "--clip-counts must be at least 1; got 0"),
        (["--frames", "voxels"], "--frames must be one of count, voxel, surface; got 'voxels'"),
        (["--dataset", "ndigits", "--aa", "none"], "--aa: for image data only; ndigits holds event data"),
        (["--split", "random"], "--split: digits has its own test split; leave it out"),
        (["--dataset", "cifar"], "unknown data set 'cifar'; did you mean cifar10 or scifar10 or cifar100?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_named_with_the_remedy(argv, message):
    with pytest.raises(UserError) as caught:
        parsed(*argv)
    assert str(caught.value) == message


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(UserError, match=r"unknown option '--bach-size'; did you mean --batch-size"):
        parsed("--bach-size", "4")


def test_all_problems_are_reported_at_once():
    with pytest.raises(UserError) as caught:
        Options.from_dict({"epochs": 0, "lr": "fast", "gp": "avg", "bach_size": 3, "seed": True})
    assert [part.split(" ")[0] for part in str(caught.value).split("; ") if part.startswith("--")] == [
        "--lr",
        "--seed",
        "--epochs",
        "--gp",
    ]
    assert "unknown option 'bach_size'; did you mean batch_size" in str(caught.value)


def test_dashes_underscores_short_names_and_equals_are_the_same():
    expected = parsed("--batch-size", "4", "--decay-rate", "0.5", "--clip-grad", "1")
    assert parsed("-b4", "--dr=0.5", "--clip_grad=1") == expected
    assert Options.from_dict({"batch-size": 4, "native-amp": True}) == Options.from_dict({"batch_size": 4, "amp": True})


def test_keyword_arguments_are_python_values_or_texts():
    options = parsed(
        "--model-kwargs", "depth=2", "mlp_ratio=1.5", "pool=before", "heads=(1, 2)", "--opt-kwargs", "a=b=c"
    )
    found = keywords(options.model.model_kwargs)
    assert found == {"depth": 2, "mlp_ratio": 1.5, "pool": "before", "heads": (1, 2)}
    assert keywords(options.optim.opt_kwargs) == {"a": "b=c"}
    assert keywords(None) == {}


def test_the_command_line_wins_over_the_recipe_which_wins_over_the_defaults(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("dataset: digits\nepochs: 7\nlr: 1e-3\nno-aug: true\namp: true\n")
    options = resolve(["-c", str(recipe), "--epochs", "9", "--aug", "--no-amp"])
    assert (options.sched.epochs, options.sched.lr, options.sched.min_lr) == (9, 1e-3, 1e-5)
    assert (options.aug.no_aug, options.train.amp, options.run.config) == (False, False, str(recipe))


def test_a_written_args_yaml_gives_the_same_run(tmp_path):
    options = parsed("--scale", "0.5", "1", "--device", "1", "--opt-betas", "0.9", "0.99", "--amp")
    path = tmp_path / "args.yaml"
    path.write_text(yaml.safe_dump(options.to_dict()))
    again = resolve(["-c", str(path)])
    assert again == options
    assert again.to_dict() == options.to_dict()
    assert set(options.changed()) == {"dataset", "scale", "device", "opt_betas", "amp"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epcohs: 3", "unknown option 'epcohs'; did you mean epochs"),
        ("epochs: [3", "not valid YAML"),
        ("- epochs", "needs lines of 'option: value'; got list"),
        ("lr: 1\nlr: 2", "given twice: lr"),
        ("batch_size: 1\nbatch-size: 2", "--batch-size is given twice"),
        ("amp: 1", "--amp needs true or false; got 1"),
        ("epochs: 3.0", "--epochs needs a whole number; got 3.0"),
        ("aa: off", "--aa needs a text; got False"),
        ("seed: null", "--seed needs a whole number; got None"),
    ],
    ids=lambda value: value.split(":")[0],
)
def test_a_faulty_recipe_is_named(tmp_path, text, message):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        resolve(["-c", str(path)])
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", [".", "..", "../other", "a/../../b"])
def test_a_run_stays_below_the_folder_of_runs(name):
    with pytest.raises(UserError, match="--experiment must name a folder below --output"):
        resolve(["--experiment", name])
    assert resolve(["--experiment", "a/b"]).run.experiment == "a/b"
