"""The report's content: what is there, what is missing, what is compared, and what may not get in."""

import re
from html.parser import HTMLParser

import pytest

from braincog_transformers.errors import UserError
from braincog_transformers.report import write_report
from braincog_transformers.report.__main__ import main
from braincog_transformers.report.page import page
from braincog_transformers.report.runs import read_runs
from braincog_transformers.report.tables import to_csv, to_latex, to_markdown

VOID = {"img", "link", "meta"}


class Page(HTMLParser):
    """Read a page, check that each element is closed, and gather texts and addresses."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.bold, self.addresses, self.ids, self.tags = [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, name, attributes):
        self.tags.append(name)
        self.addresses += [value for key, value in attributes if key in ("src", "href", "action")]
        self.ids += [value for key, value in attributes if key == "id"]
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)
            if self.open[-2:] == ["td", "b"]:
                self.bold.append(data)


def read(path):
    return Page(path.read_text(encoding="utf-8"))


def test_one_run_is_told_whole(make_run):
    folder = make_run()
    path = write_report([folder])
    shown = read(path)
    assert path == folder / "report.html"
    for told in ("first", "spikformer_digits on digits", "97.20 %", "12.5 µJ", "163,944", "22 November 2026, 08:00 UTC",
                 "not spike-driven", "1 integer", "python main.py --experiment first", "3.11.9", "late.node", "0.0010",
                 "silent", "4.00 times as much"):  # fmt: skip
        assert told in shown.text, told
    assert "Which neurons of each layer fire" in shown.text
    assert shown.tags.count("img") == 3  # two pictures, and the place to enlarge them


def test_each_energy_is_called_an_estimate_with_its_method_and_constants(make_run):
    text = read(write_report([make_run()])).text
    assert "sdt method, 4.6 pJ for a multiply-accumulate, 0.9 pJ for an accumulate" in text
    for place in re.finditer(r"\d (mJ|µJ|nJ)\b", text):
        assert "estimate" in text[max(0, place.start() - 40) : place.end()], text[place.start() - 40 : place.end()]
    assert not re.search(r"measured (energy|consumption)|energy (was )?measured|power consumption", text)


def test_the_page_refers_to_nothing_outside_of_itself(make_run):
    shown = read(write_report([make_run(), make_run("second")], make_run("third") / "all.html"))
    assert all(address.startswith(("#", "data:")) for address in shown.addresses)
    assert {address[1:] for address in shown.addresses if address.startswith("#")} <= set(shown.ids)
    assert len(shown.ids) == len(set(shown.ids))


def test_epochs_count_from_1_as_in_the_log(make_run, tmp_path):
    page = write_report([make_run(), make_run("second")], tmp_path / "all.html").read_text()
    assert set(re.findall(r"epoch (\d+): ", page)) == {"1", "2", "3"}
    assert read_runs([make_run("bare", summary="test_top1\n1\n2\n")])[0].epochs[1]["epoch"] == 2


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("energy", "No energy was estimated; run with --analyze."),
        ("audit", "was not looked at; run with --audit."),
        ("rates", "No firing rates by layer were measured; run with --spike-rate."),
        ("summary", "No training curves"),
        ("results", "The command was not recorded"),
    ],
)
def test_what_is_missing_is_said(make_run, gone, said):
    assert said in read(write_report([make_run(**{gone: None})])).text


def test_a_folder_with_options_only_makes_a_page(tmp_path):
    (tmp_path / "args.yaml").write_text("model: spikformer_digits\ndataset: digits\nlr: 0.1\n")
    text = read(write_report([tmp_path])).text
    assert "spikformer_digits on digits" in text
    assert "Which settings differ from the defaults was not recorded." in text


def test_values_of_odd_types_are_tolerated(make_run):
    odd = {"experiment": 7, "model": [], "results": {"test_top1": "x", "best": True}, "samples": None, "date": 5,
           "options": [1], "changed": 3, "environment": "none", "pictures": "a.png", "command": ["a"]}  # fmt: skip
    energy = {"rows": [{"energy": "much", "rate": None}], "total": 4}
    rates = {"rows": [{"per_step": 3}]}
    assert "7" in read(write_report([make_run(results=odd, energy=energy, rates=rates, audit={"findings": []})])).text


def test_text_of_files_is_escaped(make_run):
    bad = "<script>alert(1)</script>\"'&\x00\ud800"
    results = make_run.results(bad, 90.0, command=bad, dataset=bad, options={bad: bad}, changed={bad: bad})
    energy = make_run.energy(method=bad)
    energy["rows"][0]["name"] = bad
    folder = make_run("bad", results=results, energy=energy)
    other = make_run("other", results=make_run.results(bad + "2", 91.0))
    for path in (write_report([folder]), write_report([folder, other], folder / "both.html")):
        written = path.read_text(encoding="utf-8")
        assert "<script>alert" not in written
        assert "\x00" not in written
        assert written.count("<script>") == 1
        assert "<script>alert(1)</script>" in read(path).text


@pytest.mark.parametrize("name", ["../secret.png", "/etc/secret.png", "link.png"])
def test_a_picture_outside_of_the_folder_is_refused(make_run, tmp_path, name):
    folder = make_run(results=make_run.results("first", 90.0, pictures=[name]))
    (tmp_path / "secret.png").write_bytes((folder / "confusion.png").read_bytes() + b"secret")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UserError, match=r"results.json names a picture outside of its folder"):
        write_report([folder])


def test_a_picture_that_is_none_is_left_out(make_run):
    folder = make_run()
    (folder / "confusion.png").write_text("<svg onload=alert(1)>")
    shown = read(write_report([folder]))
    assert "confusion.png is named in results.json, but is not there as a PNG picture." in shown.text
    assert shown.tags.count("img") == 2


def test_an_svg_stands_for_its_png_and_tables_are_no_pictures(make_run):
    names = ["confusion.svg", "energy.csv", "", "."]
    shown = read(write_report([make_run(results=make_run.results("first", 90.0, pictures=names))]))
    assert shown.tags.count("img") == 2
    assert "is named in results.json" not in shown.text


def test_a_later_evaluation_is_shown(make_run):
    later = {"date": "2026-11-23T09:00:00+00:00", "results": {"test_top1": 96.5, "odd": 3}, "checkpoint": "best.pth"}
    text = read(write_report([make_run(results=make_run.results("first", 90.0, evaluation=later))])).text
    assert "evaluated again 23 November 2026, 09:00 UTC test top-1 96.50 %" in text


def bold_of(folders, tmp_path):
    return read(write_report(folders, tmp_path / "all.html"))


def test_the_best_of_each_column_is_bold(make_run, tmp_path):
    runs = [make_run("dear", top1=98.0, energy=make_run.energy(0.04)), make_run("cheap", top1=95.0)]
    shown = bold_of(runs, tmp_path)
    assert shown.bold == ["98.00", "98.00", "12.5"]  # top-1, best top-1, energy; what is equal, and T, is not
    assert "different" not in shown.text


@pytest.mark.parametrize("change", [{"method": "spikingformer"}, {"e_ac": 0.1}])
def test_energies_of_different_making_are_flagged_and_not_bold(make_run, tmp_path, change):
    runs = [make_run("one", top1=98.0, energy=make_run.energy(0.04)),
            make_run("two", top1=95.0, energy=make_run.energy(**change))]  # fmt: skip
    shown = bold_of(runs, tmp_path)
    assert shown.text.count("The energies were estimated by different methods or constants and are not compared") == 1
    assert shown.bold == ["98.00", "98.00"]


def test_runs_on_different_data_are_flagged_and_not_bold(make_run, tmp_path):
    other = make_run.results("two", 95.0, dataset="ndigits")
    shown = bold_of([make_run("one"), make_run("two", results=other, energy=make_run.energy(0.001))], tmp_path)
    assert "The runs use different data sets" in shown.text
    assert shown.bold == []


def test_a_comparison_shows_settings_that_differ_and_each_run(make_run, tmp_path):
    other = make_run.results("two", 95.0, options={"lr": 0.5, "model": "spikformer_digits", "experiment": "two"})
    shown = bold_of([make_run("one"), make_run("two", results=other)], tmp_path)
    assert "setting one two lr 0.004 0.5" in shown.text
    assert "setting one two lr 0.004 0.5 experiment" not in shown.text
    assert {"run-1", "run-2"} <= set(shown.ids)
    assert shown.tags.count("svg") == 2 + 3 + 2 * 3  # the scatter in two widths, overlaid curves, each run's own


def test_runs_of_one_name_are_told_apart(make_run):
    runs = [
        make_run("a", results=make_run.results("same", 90.0)),
        make_run("b", results=make_run.results("same", 91.0)),
    ]
    assert len({run.name for run in read_runs(runs)}) == 2


def test_tables_to_paste_escape_their_language():
    header, rows = ["run", "model", "set", "top-1, %"], [["a_b & c|d", "m", "s", "1.0"]]
    best = [[False, False, False, True]]
    assert r"a\_b \& c|d & m & s & \textbf{1.0} \\" in to_latex(header, rows, best)
    assert r"top-1, \% \\" in to_latex(header, rows, best)
    assert to_markdown(header, rows, best).splitlines()[-1] == r"| a_b & c\|d | m | s | **1.0** |"
    assert to_csv(header, [["a,b", "m", "s", 1]]).splitlines()[1] == '"a,b",m,s,1'


def test_the_command_line_writes_and_says_where(make_run, tmp_path, monkeypatch, capsys):
    runs = [str(make_run("one")), str(make_run("two") / "results.json")]
    monkeypatch.chdir(tmp_path)
    assert main(runs) == 0
    assert capsys.readouterr().out == "wrote comparison.html\n"
    assert (tmp_path / "comparison.html").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["missing"], "no folder"),
        (["."], "no run in"),
        (["run", "run/"], "given twice"),
        (["run", "damaged"], "damaged"),
        (["run", "listed"], "damaged"),
        (["run", "--output", "run/results.json"], "must end in .html"),
        (["run", "--output", "nowhere/x.html"], "cannot write"),
        (["run", "--output", "folder.html"], "cannot write"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_end_in_one_line_and_leave_nothing(make_run, tmp_path, monkeypatch, capsys, argv, said):
    make_run("run")
    make_run("damaged", energy="{")
    make_run("listed", rates={"rows": [1]})
    (tmp_path / "folder.html").mkdir()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(argv) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err
    assert told.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_report_that_fails_keeps_the_old_one(make_run, monkeypatch):
    folder = make_run()
    path = write_report([folder])
    before = path.read_bytes()

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match="No space left"):
        write_report([folder])
    assert path.read_bytes() == before
    assert not list(folder.glob(".*"))


def _luminance(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one, other):
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _mix(colour, other, share):
    pairs = [(int(colour[place : place + 2], 16), int(other[place : place + 2], 16)) for place in (1, 3, 5)]
    return "#" + "".join(f"{round(one * share + two * (1 - share)):02x}" for one, two in pairs)


@pytest.mark.parametrize("theme", [1, 2], ids=["light", "dark"])
def test_contrast_is_enough_in_both_themes(make_run, theme):
    written = page(read_runs([make_run()]))
    found = re.findall(r"--([a-z-]+): light-dark\((#\w{6}), (#\w{6})\)", written)
    colours = {row[0]: row[theme] for row in found}
    for text in ("ink", "muted", "blue", "red", "green", "amber-text"):
        for ground in ("page", "card", "soft"):
            assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for line in ("blue", "red", "amber", "green", "violet", "grey"):
        assert _contrast(colours[line], colours["card"]) >= 3, line
    assert _contrast(colours["ink"], _mix(colours["blue"], colours["card"], 0.5)) >= 4.5


def test_the_audit_says_what_stays_analog(make_run):
    analog = [{"path": f"blocks.{i}.<b>", "meaning": "softmax of running sums"} for i in range(3)]
    page = read(write_report([make_run(audit={"findings": [], "analog": [*analog, 3, {"path": ""}]})]))
    assert "Stays analog: softmax of running sums in blocks.0.<b>, blocks.1.<b> and 1 more (3)" in page.text
    assert "Stays analog" not in read(write_report([make_run("second")])).text


def task_run(make_run, name, value, other, **changes):
    """Write the run of a task whose metric is smaller where it is better."""
    task = {"name": "depth", "metric": "abs_rel", "decreasing": True}
    found = {"test_abs_rel": value, "test_rmse": other, "best": value, "best_epoch": 2, "epochs": 2}
    summary = f"epoch,train_loss,test_abs_rel,test_rmse\n0,1.0,0.5,3.0\n1,0.6,{value},{other}\n"
    content = make_run.results(name, None, results=found, task=task, pictures=[], **changes)
    return make_run(name, results=content, summary=summary)


def test_a_task_shows_its_own_figures_instead_of_accuracy(make_run):
    shown = Page(page(read_runs([task_run(make_run, "depth", 0.1234, 2.5)]))).text
    assert "Test absolute relative error 0.1234 --task depth; best 0.1234 in epoch 2" in shown
    assert "test rmse 2.500" in shown
    assert "absolute relative error by epoch" in page(read_runs([make_run.folder("depth")]))
    assert "top-1" not in shown
    assert "accuracy" not in shown.replace("Loss, accuracy or", "")


def test_tasks_are_compared_by_their_metric_and_beside_classification(make_run):
    worse, better = (task_run(make_run, name, value, 2.5) for name, value in (("worse", 0.2), ("better", 0.1)))
    read = Page(page(read_runs([worse, better])))
    assert "0.1000" in read.bold
    assert "0.2000" not in read.bold
    assert "top-1, %" not in read.text.replace("\u2060", "").replace("\xa0", " ")
    assert "↙ better" in read.text
    mixed = Page(page(read_runs([better, make_run("classified")])))
    titles = {text.replace("\u2060", "").replace("\xa0", " ") for text in mixed.texts}
    assert {"best absolute relative error", "best top-1, %"} <= titles
