"""Odd values of options, on the command line and in recipes: right, or one line with file, option and value."""

import pytest

from braincog_transformers import cli
from braincog_transformers.cli import resolve
from braincog_transformers.errors import UserError
from braincog_transformers.recipe import Options, arguments


def refused(argv):
    """Return the line with which a command line is refused."""
    with pytest.raises(UserError) as caught:
        resolve(["--dataset", "digits", *argv])
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 700
    return line


@pytest.fixture
def recipe(tmp_path):
    """Return a function that writes a recipe and returns the arguments that name it."""

    def write(content):
        path = tmp_path / "recipe.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return ["-c", str(path)]

    return write


NAMELESS = {
    "--resume": "name a checkpoint or the folder of a run",
    "--initial-checkpoint": "name a checkpoint",
    "--eval_checkpoint": "name a checkpoint or the folder of a run",
    "--config": "name a recipe",
    "--teacher": "name a model of timm's",
    "--teacher-checkpoint": "name a checkpoint",
    "--dataset-source": "name a source",
}


@pytest.mark.parametrize("option", NAMELESS)
@pytest.mark.parametrize("spelling", ["apart", "joined"])
def test_an_empty_name_on_the_command_line_is_refused(option, spelling):
    argv = [option, ""] if spelling == "apart" else [f"{option}="]
    assert refused(argv).startswith(f"{option.replace('_', '-')} is empty; {NAMELESS[option]}, or leave it out")


def test_an_empty_name_undoes_the_recipes(recipe):
    argv = recipe("dataset: digits\nresume: ''\neval_checkpoint: x.pth\ninitial_checkpoint: y.pth\n")
    options = resolve([*argv, "--eval_checkpoint", "", "--initial-checkpoint="])
    assert (options.run.eval_checkpoint, options.model.initial_checkpoint, options.run.resume) == ("", "", "")


@pytest.mark.parametrize(
    "option", ["--output", "--data-dir", "--cache-dir", "--device", "--model", "--opt", "--node-type", "--class-map"]
)
def test_an_empty_text_is_refused_where_it_means_nothing(option):
    assert f"{option} must be a text that isn't empty; got ''" in refused([option, ""])


def test_an_empty_text_is_taken_where_it_means_something():
    argv = ["--tensorboard-dir", "", "--aa", "", "--suffix", "", "--experiment", "", "--dist-bn", ""]
    assert set(resolve(["--dataset", "digits", *argv]).changed()) == {"dataset", "tensorboard_dir", "aa"}


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--model-kwargs", "depth={[]:1}"], "--model-kwargs: 'depth={[]:1}' is no value that Python can build"),
        (["--opt-kwargs", "a={{}}"], "--opt-kwargs: 'a={{}}' is no value that Python can build"),
        (["--model-kwargs", "depth=1", "depth=2"], "--model-kwargs: depth is given twice"),
        (["--model-kwargs", "checkpoint_path=x.pth"], "--model-kwargs checkpoint_path: belongs to timm"),
        (["--seed", "9" * 30], "--seed must be below 2^63; got 9999"),
        (["--seed", "9" * 5000], "--seed needs a whole number; got '999"),
        (["--experiment", "a\0b"], "--experiment must be a text of at most 4096 characters, none of them a control"),
        (["--output", "a\nb"], r"got 'a\nb'"),
        (["--suffix", "\ud800"], r"got '\ud800'"),
        (["--data-dir", "x" * 5000], "--data-dir must be a text of at most 4096 characters"),
        (["--" + "x" * 5000], "unknown option '--xxx"),
        (["y" * 5000], "belongs to no option"),
    ],
    ids=lambda value: " ".join(value)[:30].encode("unicode_escape").decode() if isinstance(value, list) else "",
)
def test_a_value_that_nothing_can_be_done_with_is_named(argv, told):
    assert told in refused(argv)


def test_values_given_in_code_are_named_whatever_they_are():
    nested = []
    nested.append(nested)
    for value in (2.0**1023, nested, {1: {2: {3: {}}}}, "x" * 10**6, b"x", object(), float("nan")):
        with pytest.raises(UserError) as caught:
            Options.from_dict({"epochs": value})
        assert "--epochs needs a whole number; got " in str(caught.value)
        assert len(str(caught.value)) < 300
    with pytest.raises(UserError, match="--lr needs a number; got a whole number of 16610 bits"):
        Options.from_dict({"lr": 10**5000})
    with pytest.raises(UserError, match=r"--epochs must be below 2\^63; got a whole number of 16610 bits"):
        Options.from_dict({"epochs": 10**5000})


def test_a_message_of_many_problems_stays_short():
    line = refused([f"--lrr{number}=1" for number in range(300)])
    assert "more problems" in line


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("amp: !!bool maybe", "--amp: YAML can't make a bool of 'maybe'"),
        ("lr: !!float abc", "--lr: YAML can't make a float of 'abc'"),
        ("epochs: !!int abc", "--epochs: YAML can't make a int of 'abc'"),
        ("epochs: !!int ''", "--epochs: YAML can't make a int of ''"),
        ("experiment: !!timestamp foo", "--experiment: YAML can't make a timestamp of 'foo'"),
        ("experiment: 2020-13-45", "--experiment: YAML can't make a timestamp of '2020-13-45'"),
        ("experiment: 2020-01-01", "--experiment needs a text; got datetime.date(2020, 1, 1)"),
        ("lr: !foo 1", "--lr: YAML can't make a !foo of '1'"),
        ("lr: !!python/object/apply:os.system [ls]", "--lr: YAML can't make a os.system of what is written there"),
        ('experiment: "a\\0b"', "--experiment must be a text of at most 4096 characters, none of them a control"),
        ('experiment: "\\ud800"', r"got '\ud800'"),
        ('experiment: "\\UFFFFFFFF"', "not valid YAML: "),
        ("lr: " + "9" * 400, "--lr needs a number; got a whole number of 1329 bits"),
        ("epochs: " + "9" * 5000, "--epochs"),
        ("model_kwargs: ['depth={[]:1}']", "--model-kwargs: 'depth={[]:1}' is no value that Python can build"),
        ("mean: " + "{a: " * 3000 + "1" + "}" * 3000, "more than 8 lists and mappings in each other, in line 2"),
        ("mean: " + "[" * 3000, "more than 8 lists and mappings in each other, in line 2"),
        ("mean: !!seq {a: 1}", "--mean: YAML can't make a seq of what is written there"),
        ("mean: &x [*x]", "--mean: YAML can't make a seq of what is written there"),
        ("suffix: [&x 1" + ", *x" * 200 + "]", "more than 100 aliases are no recipe"),
        ("mean: {a: 1}", "--mean needs a number; got {'a': 1}"),
        ("? [a]\n: 1", "line 2 has a list or a mapping in the option's place"),
        ("epochs: 1:30", "--epochs is written '1:30', which YAML reads as 90; write 90, or what is meant"),
        ("epochs: 010", "--epochs is written '010', which YAML reads as 8; write 8, or what is meant"),
        ("mean: [0.5, 1:30.5]", "--mean is written '1:30.5', which YAML reads as 90.5"),
        ("epochs: yes", "--epochs needs a whole number; got True, YAML's reading of yes; put it in quotes"),
        ("experiment: no", "--experiment needs a text; got False, YAML's reading of no; put it in quotes"),
        ("amp: y", "--amp needs true or false; got 'y'"),
        ("lr: NaN", "--lr must be finite; got nan"),
        ("lr: .inf", "--lr must be finite; got inf"),
        ("lr: 1\nlr: 2", "given twice: lr"),
        ('lr: 1\n"l\\u0072": 2', "given twice: lr"),
        ("lr:\t1", "not valid YAML: "),
        ("---\nlr: 1", "not valid YAML: expected a single document"),
        ("no: 1", "unknown option 'no'"),
        ("x" * 200 + ": 1", "unknown option 'xxx"),
    ],
    ids=lambda value: value[:24],
)
def test_a_recipes_odd_value_is_named_with_its_file(recipe, line, told):
    found = refused(recipe(f"dataset: digits\n{line}\n"))
    assert "recipe.yaml" in found
    assert told in found


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("lr: 1e-3", "lr", 0.001),
        ('lr: "0.1"', "lr", 0.1),
        ("epochs: 0x10", "epochs", 16),
        ("epochs: 1_000", "epochs", 1000),
        ("amp: yes", "amp", True),
        ("experiment: 1.10", "experiment", "1.10"),
        ("experiment: 010", "experiment", "010"),
        ("experiment: 1:30", "experiment", "1:30"),
        ("device: 0", "device", "0"),
        ("suffix: 日本　語", "suffix", "日本　語"),
        ("<<: {lr: 2}", "lr", 2.0),
        ("model_kwargs: depth=2", "model_kwargs", ("depth=2",)),
    ],
)
def test_a_recipes_value_is_read_as_it_is_written(recipe, line, name, value):
    assert resolve(recipe(f"dataset: digits\n{line}\n")).value(name) == value


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_recipes_of_other_systems_are_read(recipe, encoding):
    options = resolve(recipe("dataset: digits\r\nsuffix: é\r\n".encode(encoding)))
    assert (options.data.dataset, options.run.suffix) == ("digits", "é")


@pytest.mark.parametrize("content", [b"dataset: \xff", "dataset: é".encode("utf-32"), b"\xff\xfe\x00", b"x" * 2**21])
def test_bytes_that_are_no_recipe_are_named(recipe, content):
    assert "recipe.yaml" in refused(recipe(content))


@pytest.mark.parametrize(("root", "kind"), [("42", "int"), ("text", "str"), ("[1]", "list"), ("!!set {a}", "set")])
def test_a_recipe_of_something_else_is_named(recipe, root, kind):
    line = refused(recipe(root))
    assert "needs lines of 'option: value'; got " + kind in line or "unknown option 'a'" in line


def test_a_problem_of_a_recipe_is_not_told_where_the_command_line_wins(recipe):
    argv = recipe("dataset: digits\nlr: -1\n")
    assert "recipe.yaml: --lr must be above 0; got -1.0" in refused(argv)
    assert resolve([*argv, "--lr", "1"]).sched.lr == 1


def test_use_ema_is_asked_for_refused_or_left_open():
    assert [resolve(["--dataset", "digits", *argv]).run.use_ema for argv in ([], ["--use-ema"], ["--no-use-ema"])] == [
        None,
        True,
        False,
    ]
    assert [arguments({"use_ema": value}) for value in (None, True, False)] == [[], ["--use-ema"], ["--no-use-ema"]]


def test_the_command_line_cuts_what_is_longer_than_a_message(monkeypatch, capsys):
    def fail(options):
        raise UserError("x" * 10**6)

    monkeypatch.setattr(cli, "_run", fail)
    assert cli.main(["--dataset", "digits"]) == 2
    assert len(capsys.readouterr().err) < 900


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("<<: {epochs: 3, epochs: 4}", "given twice: epochs"),
        ("<<: [{epochs: 3}, {epochs: 4}]", "given twice: epochs"),
        ("step: !!null 3", "makes nothing of"),
        ("config: other.yaml", "can't name another one"),
        ("".join(f"name{i}: 1\n" for i in range(30_000)), "more than 1000 options"),
    ],
    ids=["merged", "merged from two", "a tag", "another recipe", "a long one"],
)
def test_nothing_of_a_recipe_is_passed_over(tmp_path, text, line):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=line):
        resolve(["--dataset", "digits", "-c", str(path)])


def test_a_recipe_with_a_tag_of_null_is_read_and_its_own_options_win_over_merged_ones(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("!!null {<<: [{epochs: 3}, {epochs: 4}], epochs: 5}")
    assert resolve(["--dataset", "digits", "-c", str(path)]).sched.epochs == 5
