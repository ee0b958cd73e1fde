import json

import pytest

from polarmask.config import CONFIGS, Config, from_dict, load_config, parse_config, to_dict


def test_defaults():
    assert parse_config([]) == Config()


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_survives_json(name):
    config = load_config(name)
    assert config != Config()
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    "args",
    [
        ["--config", "nuclei", "--optim.lr", "0.5"],
        ["--optim.lr", "0.5", "--config", "nuclei"],
        ["--optim.lr=0.5", "--config=nuclei"],
        ["--config", str(CONFIGS / "nuclei.yaml"), "--optim.lr=0.5"],
    ],
)
def test_configs_come_before_overrides_wherever_they_stand(args):
    assert parse_config(args) == load_config("nuclei", optim__lr=0.5)


def test_later_configs_win(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("optim: {lr: 0.25}\n")
    config = parse_config(["--config", "nuclei", "--config", str(path)])
    assert config == load_config("nuclei", optim__lr=0.25)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--optim.lrr", "1"], "optim.lrr is no option; did you mean optim.lr?"),
        (["--optim.momentun=1"], "optim.momentun is no option"),
        (["--model.num_ray", "7"], "model.num_ray is no option; did you mean model.num_rays?"),  # no abbreviations
        (["--config", "nuclie"], "expected a file or one of nuclei, r50_1x, shapes, got 'nuclie'"),
        (["--config"], "expected a file or one of"),
        (["--optim.lr", "fast"], "optim.lr"),
        (["--model.nms", "none"], "model.nms"),
    ],
)
def test_mistakes_are_named(args, words, capsys):
    with pytest.raises(SystemExit):
        parse_config(args)
    assert words in capsys.readouterr().err


def test_mistakes_in_files_are_named(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("modle: {num_rays: 7}\n")
    with pytest.raises(SystemExit):
        parse_config(["--config", str(path)])
    error = capsys.readouterr().err
    assert "mine.yaml: modle.num_rays is no option; did you mean model.num_rays?" in error


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit):
        parse_config(["--help"])
    lines = " ".join(capsys.readouterr().out.split())
    for option, words in {"--model.num_rays": "Rays of a polygon", "--seed": "Of the weights"}.items():
        assert option in lines
        assert words in lines


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("shape", {}, "expected a file or one of"),
        ("nuclei", {"optim__epoch": 1}, "did you mean optim.epochs?"),
        ("nuclei", {"optim__lr": "fast"}, "optim.lr"),
    ],
)
def test_load_config_raises_value_errors(name, changes, words):
    with pytest.raises(ValueError, match="load_config") as raised:
        load_config(name, **changes)
    assert words in str(raised.value)
