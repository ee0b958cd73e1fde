"""How the programs start, and how a user's errors end."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import polarmask
from polarmask import cli
from polarmask.cli.metrics import show_metrics
from polarmask.cli.predict import build_parser
from polarmask.common.errors import sentence
from polarmask.config import (
    CONFIGS,
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    check_config,
    load_config,
    parse_config,
)


def python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, **environment}, timeout=200
    )


def ended(monkeypatch, capsys, error, *arguments):
    """Exit status and stderr of a program whose main raises an error."""

    def fail(args):
        assert "--traceback" not in args
        raise error

    monkeypatch.setattr(cli, "ENVIRONMENT", {})
    monkeypatch.setitem(sys.modules, "polarmask.cli.any", SimpleNamespace(main=fail))
    with pytest.raises(SystemExit) as raised:
        cli.run("any", arguments)
    return raised.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (ImportError("needs its extra"), 2, "needs its extra\n"),
        (FileNotFoundError(2, "No such file or directory", "a.json"), 2, "a.json: No such file or directory\n"),
        (PermissionError("predict: not there"), 2, "predict: not there\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_run_users_errors_end_with_one_sentence(monkeypatch, capsys, error, status, words):
    code, printed = ended(monkeypatch, capsys, error)
    assert code == status
    assert printed.count("\n") == 1
    assert printed.endswith(words) or words.strip() in printed


def test_run_traceback_is_shown_when_asked_for(monkeypatch, capsys):
    code, printed = ended(monkeypatch, capsys, ValueError("expected this,\n  got that"), "--traceback")
    assert code == 2
    assert "Traceback" in printed
    assert "expected this, got that" in printed.splitlines()[-1]


def test_run_our_own_faults_keep_their_traceback(monkeypatch, capsys):
    with pytest.raises(KeyError):
        ended(monkeypatch, capsys, KeyError("ours"))


def test_run_exit_status_of_main_passes(monkeypatch, capsys):
    code, printed = ended(monkeypatch, capsys, SystemExit(143))
    assert (code, printed) == (143, "")


FUNCTIONS = ("train", "evaluate", "predict", "convert", "ablate")


def test_import_polarmask_loads_neither_torch_nor_numpy():
    code = (
        "import sys, polarmask; assert not {'torch', 'numpy'} & sys.modules.keys()\n"
        "assert polarmask.data.Shapes and 'load' in dir(polarmask)\n"
        "try: polarmask.nothing\n"
        "except AttributeError: print('as it should be')"
    )
    done = python("-c", code)
    assert done.stdout.strip() == "as it should be", done.stderr


def test_functions_with_a_program_of_their_name_stay_functions_in_any_order_of_imports():
    orders = [
        "import polarmask",
        "import polarmask.train, polarmask.evaluate, polarmask.predict, polarmask.convert, polarmask.ablate",
        "import polarmask.cli.train, polarmask.training.trainer; import polarmask.train",
        "import polarmask; polarmask.train; import polarmask.train, polarmask.predict",
        "from polarmask import train; import polarmask.train; import polarmask.training.trainer",
        "import polarmask.train as train; assert train is sys.modules['polarmask.train']",
    ]
    code = (
        "import pickle, sys, types\n"
        f"for order in {orders}:\n"
        "    for name in [name for name in sys.modules if name.split('.')[0] == 'polarmask']: del sys.modules[name]\n"
        "    exec(order)\n"
        "    import polarmask\n"
        f"    for name in {FUNCTIONS}:\n"
        "        found = getattr(polarmask, name)\n"
        "        assert type(found) is types.FunctionType and found.__name__ == name, (order, found)\n"
        "        assert pickle.loads(pickle.dumps(found)) is found, order  # as a target of multiprocessing is\n"
        "    from polarmask import train\n"
        "    assert train is polarmask.train, order\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


# Stands in for a module that is not to be loaded.
REFUSES = "import sys; sys.modules.update(dict.fromkeys(('torch', 'numpy', 'accelerate', 'matplotlib')))\n"


def run_without_torch(*arguments):
    """Runs ``polarmask`` in a process that cannot import torch; -> the process and its seconds of CPU time."""
    code = f"{REFUSES}import time; from polarmask.cli import main\ntry: main({list(arguments)})\nfinally: "
    done = python("-c", code + "print('seconds', time.process_time())")
    *printed, seconds = done.stdout.splitlines()
    return done, "\n".join(printed), float(seconds.split()[1])


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_polarmask_without_a_program_lists_the_programs_in_less_than_a_second(arguments):
    done, printed, seconds = run_without_torch(*arguments)
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {program} " in printed for program in cli.PROGRAMS)
    assert seconds < 1


@pytest.mark.parametrize("program", cli.PROGRAMS)
def test_help_of_a_program_comes_in_less_than_a_second_without_torch(program):
    done, printed, seconds = run_without_torch(program, "--help")
    assert done.returncode == 0, done.stderr
    assert printed.startswith(f"usage: polarmask {program} ")
    assert "--traceback" in printed
    assert seconds < 1


def test_a_wrong_option_is_refused_without_torch():
    done, _, _ = run_without_torch("train", "--optim.epochs", "0")
    assert (done.returncode, done.stderr.split(",")[0]) == (
        2,
        "polarmask.train: optim.epochs: expected a whole number of at least 1",
    )


@pytest.mark.parametrize("module", ["polarmask", "polarmask.train"])
def test_python_m_runs_the_programs_of_the_console_script(module):
    program = ["train"] if module == "polarmask" else []
    done = python("-m", module, *program, "--help")
    assert done.stdout.startswith("usage: polarmask train "), done.stderr


def test_the_console_script_is_the_entry_point_of_the_command_line():
    pyproject = Path(__file__).parents[3] / "pyproject.toml"
    assert '[project.scripts]\npolarmask = "polarmask.cli:main"\n' in pyproject.read_text()


def test_an_unknown_program_is_refused_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main(["evalute"])
    assert raised.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("polarmask: expected a program, one of train, evaluate")
    assert printed.endswith("got 'evalute'; did you mean evaluate?\n")


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        ([], False),
        (["--overwrite"], True),
        (["--overwrite", "--seed", "3"], True),
        (["--overwrite", "true"], True),
        (["--overwrite=true"], True),
        (["--overwrite", "false"], False),
        (["--seed", "3", "--overwrite"], True),
    ],
)
def test_options_that_are_true_or_false_may_be_given_without_a_value(arguments, want):
    assert parse_config(arguments).overwrite is want


@pytest.mark.parametrize(
    ("arguments", "overwrite", "images"),
    [
        (["--overwrite", "a.png", "b.png"], True, ["a.png", "b.png"]),
        (["a.png", "--overwrite"], True, ["a.png"]),
        (["--overwrite", "false", "a.png"], False, ["a.png"]),
        (["--overwrite", "True", "a.png"], True, ["a.png"]),
    ],
)
def test_a_flag_before_an_image_leaves_it_an_image(arguments, overwrite, images):
    parsed = build_parser().parse_args(["--weights", "x", *arguments])
    assert (parsed.overwrite, parsed.images) == (overwrite, images)


def test_a_flag_of_a_section_may_be_given_without_a_value():
    assert parse_config(["--data.photometric", "--optim.lr", "0.1"]).data.photometric


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["evaluate", "--weights", "x"],
        ["predict", "--weights", "x", "y"],
        ["convert", "x", "y"],
        ["ablate"],
        ["audit", "x"],
    ],
)
def test_programs_set_how_threads_wait_before_torch_is_imported(arguments):
    """A finder notes the environment when torch is first looked for."""
    program, *options = arguments
    code = (
        "import os, runpy, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'torch': print(os.environ.get('OMP_WAIT_POLICY')); sys.exit(5)\n"
        "sys.meta_path.insert(0, Finder())\n"
        f"sys.argv = ['program', *{options}]\n"
        f"runpy.run_module('polarmask.{program}', run_name='__main__', alter_sys=True)"
    )
    unset = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=unset)
    assert (done.stdout.strip(), done.returncode) == ("PASSIVE", 5), done.stderr
    assert python("-c", code, OMP_WAIT_POLICY="ACTIVE").stdout.strip() == "ACTIVE"


def test_programs_without_the_extra_name_it():
    code = (
        "import runpy, sys\n"
        "sys.modules['yaml'] = None\n"
        "sys.argv = ['program']; runpy.run_module('polarmask.train', run_name='__main__', alter_sys=True)"
    )
    done = python("-c", code)
    assert done.returncode == 2
    assert done.stderr == 'polarmask needs its extra: pip install "polarmask[train]" (missing: yaml)\n'
    done = python("-c", "import sys; sys.modules['yaml'] = None; import polarmask; polarmask.load")
    assert done.stderr.splitlines()[-1].endswith('pip install "polarmask[train]" (missing: yaml)')


def test_evaluate_weights_that_are_missing_are_named(tmp_path):
    from polarmask.cli.evaluate import main

    with pytest.raises(FileNotFoundError) as raised:
        main(["--weights", str(tmp_path / "none")])
    want = f"load: expected a file of weights, got {tmp_path / 'none'}, where there is none"
    assert sentence(raised.value) == want


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as raised:
        parse_config(list(arguments), prog="polarmask train")
    assert raised.value.code == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    return printed


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("optim.epochs", "-1", "expected a whole number of at least 1, got -1"),
        ("optim.epochs", "1.5", "expected a whole number, got 1.5"),
        ("optim.epochs", "null", "expected a whole number, got"),
        ("optim.batch_size", "0", "at least 1, got 0"),
        ("optim.lr", "-0.1", "a number above 0, got -0.1"),
        ("optim.lr", ".nan", "a number above 0, got nan"),
        ("optim.clip", "0", "above 0, got 0"),
        ("optim.ema", "1", "above 0 and below 1, or null, got 1"),
        ("optim.milestones", "[3, 2]", "rising epochs"),
        ("data.flip", "2", "from 0 to 1, got 2"),
        ("data.percentiles", "[99, 1]", "two rising numbers from 0 to 100"),
        ("data.percentiles", "[1, 100.5]", "two rising numbers from 0 to 100"),
        ("data.percentiles", "[1, 2, 3]", "a list of 2 numbers, or null, got [1, 2, 3]"),
        ("data.percentiles", "5", "a list of 2 numbers, or null, got 5"),
        ("data.crop", "0", "at least 1, or null, got 0"),
        ("data.resize", "[0, 5]", "a width and a height of at least 1"),
        ("data.workers", "-1", "at least 0, got -1"),
        ("data.val_fraction", "1", "at least 0 and below 1"),
        ("data.channels", "[]", "one to three channels"),
        ("data.channels", "[-1]", "one to three channels"),
        ("model.num_rays", "2", "at least 3, got 2"),
        ("model.strides", "[]", "rising strides"),
        ("model.strides", "[8, 4]", "rising strides"),
        ("model.ranges", "[[0, 8]]", "expected 5, one for each of model.strides, got 1"),
        ("model.ranges", "[[8, 0]]", "pairs of rising numbers"),
        ("model.nms_threshold", "1.5", "from 0 to 1, got 1.5"),
        ("model.max_detections", "0", "at least 1, or null, got 0"),
        ("model.image_std", "[1, 0, 1]", "three numbers above 0"),
        ("eval.max_dets", "[]", "rising numbers of at least 1"),
        ("eval.max_dets", "[10, 1]", "rising numbers of at least 1"),
        ("eval.score_threshold", "-0.1", "from 0 to 1, got -0.1"),
        ("keep_checkpoints", "0", "at least 1, got 0"),
        ("seed", "-1", "from 0 to 2^63 - 1, got -1"),
    ],
)
def test_numbers_out_of_their_range_are_refused_in_one_sentence(capsys, option, value, words):
    printed = refused(capsys, f"--{option}={value}")
    assert printed.startswith(f"polarmask.train: {option}: expected")
    assert words in printed


@pytest.mark.parametrize(
    "config",
    [
        Config(optim=OptimConfig(epochs=0)),
        Config(optim=OptimConfig(lr=float("nan"))),
        Config(optim=OptimConfig(batch_size="4")),
        Config(data=DataConfig(train_heights=(8, 4))),
        Config(data=DataConfig(resize=5)),
        Config(model=ModelConfig(nms="boxes")),
        Config(eval=EvalConfig(boundary=0)),
    ],
)
def test_check_config_takes_configurations_of_python_too(config):
    with pytest.raises(ValueError, match=r"^[a-z]+\.[a-z_]+: expected .*, got "):
        polarmask.train(config)


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_check_config_takes_every_recipe(name):
    check_config(load_config(name))


@pytest.mark.parametrize(
    ("arguments", "option", "condition"),
    [
        (["--data.count", "5"], "data.count", "data.dataset shapes"),
        (["--config", "nuclei", "--data.test", "val"], "data.test", "data.dataset files"),
        (["--config", "nuclei", "--data.dataset", "nuclei", "--data.root", "x"], "data.root", "data.dataset files"),
        (["--data.rotate", "true"], "data.rotate", "data.crop"),
        (["--data.keep_aspect", "true"], "data.keep_aspect", "data.resize"),
        (["--config", "nuclei", "--optim.milestones", "[3]"], "optim.milestones", "optim.schedule step"),
        (["--config", "nuclei", "--model.deformable_backbone", "true"], "model.deformable_backbone", "model.backbone"),
        (["--evaluate_every", "0", "--stop_after", "3"], "stop_after", "evaluate_every"),
    ],
)
def test_options_without_effect_are_refused(capsys, arguments, option, condition):
    printed = refused(capsys, *arguments)
    assert f"{option}: has an effect with" in printed
    assert condition in printed
    assert f"leave out --{option}" in printed


def test_options_that_are_switched_off_are_taken():
    parse_config(["--data.rotate", "false", "--data.resize", "null", "--data.jitter", "null"])


def test_parser_root_without_dataset_selects_files(tmp_path, capsys):
    assert parse_config(["--config", "nuclei", "--data.root", "mine"]).data.dataset == "files"
    assert load_config("shapes", data__root="mine").data.dataset == "files"
    path = tmp_path / "mine.yaml"
    path.write_text("base: nuclei\ndata: {root: mine}\n")
    config = parse_config(["--config", str(path)])
    assert (config.data.dataset, config.data.root) == ("files", "mine")
    path.write_text("base: nuclei\ndata: {root: mine, dataset: nuclei}\n")
    assert "data.root: expected data.dataset files, got nuclei" in refused(capsys, "--config", str(path))


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("audit", ["root", "--out", "x"]),
        ("audit", ["root", "--optim.lr", "1"]),
        ("audit", ["root", "--data.dataset", "shapes"]),
        ("evaluate", ["--weights", "x", "--data.crop", "5"]),
        ("evaluate", ["--weights", "x", "--data.flip=0"]),
        ("convert", ["a.pth", "b", "--config", "r50_caffe_1x", "--out", "x"]),
        ("ablate", ["--stop_after", "3"]),
    ],
)
def test_programs_refuse_options_that_they_do_not_use(program, arguments, capsys):
    main = importlib.import_module(f"polarmask.cli.{program}").main
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    printed = capsys.readouterr().err
    assert "has no effect on polarmask." in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(("value", "explained"), [(-1.0, True), (0.5, False)])
def test_show_metrics_with_minus_1_explains_it(capsys, value, explained):
    show_metrics({"segm/AP": 0.5, "segm/APl": value})
    printed = capsys.readouterr().out
    assert printed.startswith("                 segm/AP: 0.5000\n")
    assert ("-1: there are no instances of that size" in printed) == explained


def test_help_of_audit_shows_what_it_uses(capsys):
    from polarmask.cli.audit import main

    with pytest.raises(SystemExit):
        main(["--help"])
    printed = capsys.readouterr().out
    assert "--data.min_area" in printed
    assert "--optim.lr" not in printed
    assert "--traceback" in printed
