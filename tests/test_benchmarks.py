"""Every benchmark once at a tiny size: all runners finish, and give the same result. Nothing is timed."""

import json
import re
from dataclasses import replace
from pathlib import Path

import bench_data
import bench_machine
import bench_model
import bench_outlines
import bench_polar_iou
import bench_polar_target
import bench_polygon_iou
import bench_polygon_nms
import bench_rasterize
import bench_rle
import bench_star_distances
import bench_top_scores
import gpu
import gpu_here
import learning
import pytest
import race
import report
import torch
import training_step

from polarmask.config import load_config

ROOT = Path(__file__).parents[1]
MODULES = (
    bench_data,
    bench_machine,
    bench_model,
    bench_outlines,
    bench_polar_iou,
    bench_polar_target,
    bench_polygon_iou,
    bench_polygon_nms,
    bench_rasterize,
    bench_rle,
    bench_star_distances,
    bench_top_scores,
)
RUNNERS = {
    f"{contest.name}-{case.name}-{runner.name}".replace(" ", "_"): (contest, case, runner)
    for module in MODULES
    for contest in module.RACES
    for case in contest.cases
    for runner in contest.runners(case)
    if "compile" not in contest.name + runner.name  # half a minute of a C++ compiler
}
ON_GPU = {f"{contest.name}-{contest.cases[0].name}".replace(" ", "_"): contest for contest in gpu.RACES}


@pytest.mark.parametrize("name", RUNNERS)
def test_runs_and_agrees(name):
    contest, case, runner = RUNNERS[name]
    inputs = race.inputs_of(case, case.tiny)
    result = race.check(contest, runner, inputs)
    if runner.name == race.OURS:
        work = race.work(contest, inputs, result)
        assert work["floor_bytes"] > 0
        assert work["amount"] is None or work["amount"] > 0


def without_compiler(contest):
    others = tuple(runner for runner in contest.others if "compile" not in runner.name)
    return replace(contest, others=others)


@pytest.mark.parametrize("name", ON_GPU)
def test_what_runs_on_a_gpu_runs(name):
    """On the CPU, by a clock that tells nothing: inputs, peers and comparisons are the same."""
    contest = without_compiler(ON_GPU[name])
    clock = gpu.Clock("cpu", lambda call: call() is None or 1e-3, lambda call: call)
    case = contest.cases[0]
    records = list(gpu.measure(contest, case, case.tiny, clock, rounds=2))
    assert [record["runner"] for record in records] == [runner.name for runner in contest.runners(case)]
    assert all(record["floor_bytes"] > 0 for record in records)


def test_page_of_a_gpu():
    clock = gpu.Clock("cpu", lambda call: call() is None or 1e-3, lambda call: call)
    contests = [without_compiler(contest) for contest in gpu.RACES[:3]]
    records = [
        record
        for contest in contests
        for record in gpu.measure(contest, contest.cases[0], contest.cases[0].tiny, clock, rounds=1)
    ]
    machine = {"gpu": "A chip", "torch": "2", "cuda": "13", "archs": "9.0", "date": "2026-01-01"}
    text = gpu.page(machine, records)
    assert "# A chip" in text
    assert "polar_iou_loss: 1 k rows | released formula, eager | 1e+03 |  | 1× |" in text.replace("1000", "1e+03")


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would run")
def test_without_a_gpu_it_says_so(tmp_path):
    sentence = r"expected .*, (got|found) .*"
    assert re.fullmatch(sentence, gpu_here.obstacle())
    with pytest.raises(SystemExit, match=f"bench-gpu: {sentence}"):
        gpu.main(tmp_path)
    assert not list(tmp_path.iterdir())


def measured(race_, case, runner, threads, seconds, **about):
    extra = {
        "race": race_,
        "case": case,
        "reason": "why not",
        "runner": runner,
        "threads": threads,
        "size": 10,
        "unit": "row",
        "aim": None,
        "limit": None,
        "floor_aim": None,
        "growth": "rows",
        "peak_bytes": 5e6,
        **about,
    }
    if runner == race.OURS:
        floor = {"input_bytes": 10**6, "output_bytes": 10**6, "floor_bytes": 2 * 10**6, "floor_operations": 10**9}
        extra = {**floor, "amount": None, **extra}
    stats = {"min": seconds, "median": 2 * seconds, "rounds": 3, "data": [seconds, 2 * seconds, 3 * seconds]}
    return {"stats": stats, "extra_info": extra}


def test_report(tmp_path):
    benchmarks = [
        measured(name, case, runner, threads, seconds / threads, **about)
        for threads in (1, 2)
        for name, case, runner, seconds, about in (
            ("copy", "big", race.OURS, 1e-3, {}),
            ("multiply", "big", race.OURS, 0.1, {}),
            ("convolution in bfloat16", "a", race.OURS, 8.0, {}),
            ("convolution in bfloat16", "a", "in float32", 2.0, {}),
            ("op", "small", race.OURS, 1e-3, {"size": 10, "limit": 1e-3}),
            ("op", "middle", race.OURS, 1e-2, {"size": 100}),
            ("op", "large", race.OURS, 0.2, {"size": 1000}),
            ("op", "large", "a peer", 1.0, {"size": 1000, "aim": 10}),
            ("predict", "image", race.OURS, 3.0, {}),
            (report.SAMPLES, "8 instances", race.OURS, 0.25, {}),
        )
    ]
    info = {
        "cpu": {"brand_raw": "A CPU", "count": 2},
        "python_version": "3",
        "torch": "2",
        "isa": "avx2",
        "bfloat16": "",
    }
    run = {"benchmarks": benchmarks, "machine_info": info, "datetime": "2026-01-01T00:00:00"}
    (tmp_path / "run.json").write_text(json.dumps(run))
    marks = "<!-- written by make bench -->\n", "<!-- /written by make bench -->\nafter\n"
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{marks[0]}old\n{marks[1]}")
    report.main(tmp_path / "run.json", tmp_path / "results", readme)
    assert sorted(path.suffix for path in (tmp_path / "results").iterdir()) == [".json", ".md", ".svg", ".svg", ".svg"]
    page = (tmp_path / "results" / "a-cpu-2-cores-avx2.md").read_text()
    assert "1 thread: 2.0 GB/s, 10 GFLOP/s" in page
    assert "| op: large | a peer | ≥ 10× | 5× | 5× | no |" in page
    assert "| op: small | time | ≤ 1000 µs a row | 100 µs | 50 µs | yes |" in page
    assert "takes 4 times as long as in float32" in page
    assert "| predict: image | polarmask_ops | 6.00 | 3.00 | 8.70 | 4.35 | 3, 3 |" in page
    assert "| 8 instances | polarmask_ops | 4 | 8 |" in page
    assert "| op: large | polarmask_ops | 200 | 100 | – | – | 50% |" in page
    text = readme.read_text()
    assert text.startswith(f"before\n{marks[0]}How many times faster")
    assert text.endswith(marks[1])
    assert "| op: large | a peer | 5× | ≥ 10× |" in text
    assert "old" not in text


def test_samples_a_second_are_of_a_race_that_there_is():
    assert report.SAMPLES in {race.name for race in bench_data.RACES}


def test_the_readme_has_a_place_for_the_summary():
    assert report.SUMMARY.search((ROOT / "README.md").read_text())


def tiny(data, lr, seed):
    model = {"channels": 32, "depth": 1, "strides": [4], "ranges": [[-1, 1e8]]}
    other = {"data__size": 64, "data__count": 10, "optim__batch_size": 2, "optim__lr": lr, "seed": seed}
    return load_config(data, **{f"model__{name}": value for name, value in model.items()}, **other)


def test_learning_beside_mask_rcnn(tmp_path, monkeypatch):
    """Of two learning rates the better one goes on, with the second seed; what was measured is not measured again."""
    chosen = [replace(learner, rates=learner.rates[:2]) for learner in learning.LEARNERS]
    monkeypatch.setattr(learning, "LEARNERS", chosen)
    path = tmp_path / "runs.jsonl"
    records = learning.run(path, tiny, ["shapes"], [3, 4], 0.1)
    assert [(record["model"], record["seed"]) for record in records] == [
        ("PolarMask", 3),
        ("PolarMask", 4),
        ("Mask R-CNN", 3),
        ("Mask R-CNN", 4),
    ]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 5
    assert records[3]["lr"] == records[2]["lr"] == max(lines[2:4], key=lambda line: line["segm/AP"])["lr"]
    for record in records:
        assert record["steps"] > 0
        assert record["seconds/step"] * record["steps"] >= 0.1
        assert 0 <= record["segm/AP"] <= record["segm/AP50"] <= 1
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))  # interrupted in the last one
    again = learning.run(path, tiny, ["shapes"], [3, 4], 0.1)
    assert again[:-1] == records[:-1]
    assert [json.loads(line) for line in path.read_text().splitlines()] == [*lines[:-1], again[-1]]
    text = learning.page(again, "python learning.py")
    assert "| shapes | PolarMask | 0.002 | " in text
    assert "| shapes | Mask R-CNN | " in text


def test_shares_of_a_training_step():
    found = training_step.measure(tiny("shapes", 2e-3, 0), warm_up=1, steps=2)
    assert found["seconds/step"] > 0
    assert 0 < found["waiting"] < 1
    assert 0 < found["ops"] < 1
