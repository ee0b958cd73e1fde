"""Every benchmark once at a tiny size: all runners finish, and give the same result. Nothing is timed."""

import bench_data
import bench_machine
import bench_polar_iou
import bench_polar_target
import bench_polygon_nms
import bench_rasterize
import pytest
import race

MODULES = (bench_data, bench_machine, bench_polar_iou, bench_polar_target, bench_polygon_nms, bench_rasterize)
RUNNERS = {
    f"{contest.name}-{case.name}-{runner.name}".replace(" ", "_"): (contest, case, runner)
    for module in MODULES
    for contest in module.RACES
    for case in contest.cases
    for runner in contest.runners(case)
    if "compile" not in runner.name  # half a minute of a C++ compiler
}


@pytest.mark.parametrize("name", RUNNERS)
def test_runs_and_agrees(name):
    contest, case, runner = RUNNERS[name]
    race.check(contest, runner, race.inputs_of(case, case.tiny))
