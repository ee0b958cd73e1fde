import json

import pytest
import yaml

from polarmask.config import CONFIGS, Config, from_dict, load_config, parse_config, to_dict


def test_config_without_options_has_defaults():
    assert parse_config([]) == Config()


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_config_through_json_is_the_same(name):
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


def test_parser_of_several_configs_takes_the_last_value(tmp_path):
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
        (["--optim.l", "1"], "optim.l is no option; did you mean optim.lr?"),
        (["--config", "nuclie"], "r50_caffe_1x, r50_caffe_2x, r50_caffe_dcn_1x, "),
        (["--config", "nuclie"], "x101_dcn_2x, got 'nuclie'"),
        (["--config"], "expected a file or one of"),
        (["--optim.lr", "fast"], "optim.lr"),
        (["--model.nms", "none"], "model.nms"),
    ],
)
def test_parser_with_mistakes_names_them(args, words, capsys):
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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("base: nuclie", "expected a file or one of"),
        ("base: {name}", "is its own base"),
        ("- 1", "expected options and their values, got [1]"),
        ("model: [", "expected YAML"),
        ("model: {num_rays: many}", "num_rays"),
    ],
)
def test_parser_config_that_is_no_configuration_is_refused(content, words, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(content.replace("{name}", str(path)))
    with pytest.raises(SystemExit):
        parse_config(["--config", str(path)])
    assert words in capsys.readouterr().err


def test_parser_config_with_bases_extends_them(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: [r50_caffe_1x, r50_2x]\noptim: {lr: 0.5}\n")
    config = parse_config(["--config", str(path)])
    assert (config.model.style, config.data.train_heights, config.optim.epochs) == ("caffe", (640, 800), 26)
    assert config.optim.lr == 0.5
    assert config.model.weights == "resnet50_caffe.pth"  # of r50_caffe_1x, though r50_2x extends r50_1x too


@pytest.mark.parametrize("name", ["nuclei", "r101_caffe_dcn_2x"])
def test_print_config_shows_all_and_can_be_read_again(name, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_config(["--optim.lr", "0.5", "--print_config", "--config", name])
    assert not ended.value.code
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out)
    assert parse_config(["--config", str(path)]) == load_config(name, optim__lr=0.5)
    printed = yaml.safe_load(path.read_text())
    assert {part: set(printed[part]) for part in ("model", "data", "optim", "eval")} == {
        part: set(to_dict(Config())[part]) for part in ("model", "data", "optim", "eval")
    }


PUBLISHED = {
    # images in a batch, learning rate, warm-up, epochs, milestones, width and height
    "1x": (16, 0.01, 500, 12, [8, 11], (1280, 768)),
    "dcn_1x": (128, 0.08, 2000, 14, [10, 13], (1280, 768)),
    "2x": (32, 0.02, 2000, 26, [18, 24], (1333, 800)),
    "dcn_2x": (32, 0.02, 2000, 26, [18, 24], (1333, 800)),
}
BACKBONES = {"r50": "resnet50", "r101": "resnet101", "x101": "resnext101_64x4d"}


@pytest.mark.parametrize("schedule", PUBLISHED)
@pytest.mark.parametrize("backbone", ["r50", "r50_caffe", "r101", "r101_caffe", "x101"])
def test_recipes_are_the_published_ones(backbone, schedule):
    config = load_config(f"{backbone}_{schedule}")
    batch, rate, *others = PUBLISHED[schedule]
    if (backbone, schedule) == ("x101", "dcn_1x"):
        batch, rate = 64, 0.04  # two images on each of 32 GPUs
    optim, data, model = config.optim, config.data, config.model
    assert (optim.batch_size, optim.lr) == (batch, rate)
    assert [optim.warmup_steps, optim.epochs, optim.milestones, data.resize] == others
    assert (optim.optimizer, optim.weight_decay, optim.clip) == ("sgd", 1e-4, 35)
    assert (optim.bias_lr_factor, optim.bias_decay_factor) == (2, 0)
    assert data.train_heights == ((640, 800) if schedule.endswith("2x") else None)
    assert (data.flip, data.keep_aspect, model.pad_multiple) == (0.5, False, 128)
    assert (data.crowd, data.min_area, data.min_side, data.keep_empty) == ("background", 16, 10, False)
    assert model.backbone == BACKBONES[backbone.split("_")[0]]
    assert model.deformable_backbone == model.deformable_head == schedule.startswith("dcn")
    caffe = backbone.endswith("caffe")
    assert (model.style, model.bgr) == (("caffe", True) if caffe else ("pytorch", False))
    assert model.weights == (f"{model.backbone}_caffe.pth" if caffe else "torchvision")
    # As the release has them, of 255: Caffe's in blue, green, red.
    mean, std = (
        ([102.9801, 115.9465, 122.7717], [1.0] * 3) if caffe else ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    )
    order = -1 if caffe else 1
    assert [255 * value for value in model.image_mean[::order]] == pytest.approx(mean)
    assert [255 * value for value in model.image_std[::order]] == pytest.approx(std)
    assert config.out == f"runs/{backbone}_{schedule}"


def test_help_of_train_explains_every_option(capsys):
    with pytest.raises(SystemExit):
        parse_config(["--help"])
    lines = " ".join(capsys.readouterr().out.split())
    for option, words in {"--model.num_rays": "Rays of a polygon", "--seed": "Seed of the initial weights"}.items():
        assert option in lines
        assert words in lines


def test_load_config_takes_values_of_python():
    config = load_config(
        "nuclei",
        data__percentiles=None,
        data__rotate=False,
        model__strides=[4, 8],
        model__ranges=[(-1, 64), (64, 1e8)],
        data__scale=(1, 2),
    )
    assert (config.data.percentiles, config.data.rotate, config.model.strides) == (None, False, [4, 8])
    assert config.data.scale == (1, 2)


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
