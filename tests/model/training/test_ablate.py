import json

import pytest

from polarmask.cli.ablate import main
from polarmask.config import load_config
from polarmask.config.ablations import GRIDS
from polarmask.training.ablation import Row, ablate, table

TINY = ["--model.channels", "32", "--model.depth", "1", "--data.size", "64", "--data.count", "8"]
TINY += ["--model.strides", "[4]", "--model.ranges", "[[-1,1e8]]", "--optim.batch_size", "4", "--optim.epochs", "1"]


def row(grid, name, aps, published):
    return Row(grid, name, [{"segm/AP": ap, "segm/AP50": 2 * ap, "segm/AP75": ap / 2} for ap in aps], published)


def test_the_table_says_where_the_order_is_another():
    rows = [
        row("rays", "18", [0.2], 26.2),
        row("rays", "36", [0.1], 27.7),
        row("box", "with", [0.3], 27.7),
        row("box", "without", [0.2], 27.5),
    ]
    printed = table(rows)
    assert "| rays | 18 | 20.0 | 40.0 | 10.0 | 26.2 |" in printed
    assert printed.endswith("Not in the paper's order: 18 above 36.\n")
    assert table(rows[1:]).endswith("Not in the paper's order: none.\n")


def test_of_several_seeds_mean_and_spread_and_what_they_agree_on():
    rows = [
        row("rays", "18", [0.2, 0.3], 26.2),
        row("rays", "36", [0.1, 0.25], 27.7),
        row("rays", "72", [0.05, 0.31], 27.6),
    ]
    printed = table(rows)
    assert "| rays | 18 | 25.0 ± 7.1 | 50.0 ± 14.1 | 12.5 ± 3.5 | 26.2 |" in printed
    assert "Not in the paper's order: 18 above 36.\n" in printed
    assert printed.endswith("In another order with another seed: 18 and 72, 36 and 72.\n")


def test_settings_are_options_of_the_model():
    model = load_config("shapes").model
    names = {name for settings in GRIDS.values() for setting in settings for name in setting.model}
    assert names == {"num_rays", "mask_loss", "mask_weight", "centerness", "box_branch"}
    assert all(hasattr(model, name) for name in names)
    assert [setting.name for setting in GRIDS["rays"]] == ["18 rays", "24 rays", "36 rays", "72 rays"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("ablate")
    main(["--grid", "scale", *TINY, "--out", str(out)])
    return out


def test_scales_are_those_of_one_training(run, capsys):
    assert sorted(path.name for path in run.iterdir()) == ["ablation.json", "ablation.md", "ablation.png", "seed-0"]
    rows = json.loads((run / "ablation.json").read_text())
    assert [entry["name"] for entry in rows] == ["scale 400 of 800", "scale 600 of 800", "scale 800 of 800"]
    final = json.loads((run / "seed-0" / "base" / "metrics.json").read_text())
    assert rows[2]["metrics"] == [final]
    assert all("segm/AP" in entry["metrics"][0] for entry in rows)


def test_each_setting_is_trained_alike(run, tmp_path):
    main(["--grid", "box", *TINY, "--seeds", "2", "--out", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"seed-0", "seed-1"}
    assert all(len(entry["metrics"]) == 2 for entry in json.loads((tmp_path / "ablation.json").read_text()))
    lines = {path.name: (path / "metrics.jsonl").read_text().splitlines() for path in (tmp_path / "seed-0").iterdir()}
    assert set(lines) == {"base", "box_branch-False"}
    first = {name: next(line for line in rows if "loss/mask" in line) for name, rows in lines.items()}
    losses = {name: json.loads(line) for name, line in first.items()}
    assert "loss/box" not in losses["box_branch-False"]
    again = next(
        line for line in (run / "seed-0" / "base" / "metrics.jsonl").read_text().splitlines() if "loss/mask" in line
    )
    assert json.loads(again)["loss/mask"] == losses["base"]["loss/mask"]  # the same seed
    assert losses["base"]["step"] == losses["box_branch-False"]["step"]


def test_other_grids_do_not_exist():
    with pytest.raises(ValueError, match="expected grids out of rays, loss, centerness, box, scale, got angles"):
        ablate(load_config("shapes"), ["angles"])
    with pytest.raises(ValueError, match="expected seeds >= 1, got 0"):
        ablate(load_config("shapes"), seeds=0)
