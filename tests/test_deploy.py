"""The manifests in deploy/: what they run is run here, by the shell that would run it there.

No cluster and no image is made: what a kubelet does with the rest is not tried.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import environment

import fastecho

yaml = pytest.importorskip("yaml", reason="needs PyYAML, which comes with Dask")

JOB = Path(__file__).resolve().parent.parent / "deploy" / "kubernetes" / "bench-job.yaml"
NODES = 2


def job() -> dict[str, Any]:
    """Return the manifest."""
    manifest: dict[str, Any] = yaml.safe_load(JOB.read_text())
    return manifest


def container() -> dict[str, Any]:
    """Return its only container."""
    [one] = job()["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = one
    return found


def start(index: int, folder: Path, **changes: str) -> subprocess.Popen[bytes]:
    """Start what a pod would run."""
    values = {one["name"]: one["value"] for one in container()["env"]} | changes
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with (folder / f"{index}.json").open("wb") as log:
        return subprocess.Popen(
            [*container()["command"], *container()["args"]],
            stdout=log,
            env=environment(
                JOB_COMPLETION_INDEX=str(index),
                MESSAGES=str(folder / f"{index}.messages"),
                PATH=path,
                **values,
            ),
        )


def test_pods_that_begin_together_are_merged(tmp_path: Path) -> None:
    with fastecho.Server() as server:
        begin = {"START_AT": f"{time.time() + 4:.3f}", "OPTIONS": "-c 2 -d 0.5"}
        pods = [start(n, tmp_path, TARGET=server.address, **begin) for n in range(NODES)]
        said = [
            (pod.wait(30), (tmp_path / f"{n}.messages").read_text()) for n, pod in enumerate(pods)
        ]
    assert [code for code, _ in said] == [0] * NODES, said
    logs = [str(tmp_path / f"{n}.json") for n in range(NODES)]
    merged = subprocess.run(
        [sys.executable, "-m", "fastecho", "report", "--merge", *logs, "--json"],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert merged.returncode == 0, merged.stderr
    result = json.loads(merged.stdout)
    assert [part["label"] for part in result["parts"]] == ["pod-0", "pod-1"]
    assert result["messages"] == sum(part["messages"] for part in result["parts"]) > 0


def test_pod_that_comes_too_late_fails_and_says_why(tmp_path: Path) -> None:
    pod = start(0, tmp_path, TARGET="127.0.0.1:1", START_AT=f"{time.time() - 5:.0f}")
    assert pod.wait(30) != 0
    [line] = (tmp_path / "0.messages").read_text().splitlines()
    assert "--start-at" in line
    assert (tmp_path / "0.json").read_text() == ""


def test_each_pod_counts_once() -> None:
    spec = job()["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]
    assert spec["backoffLimit"] == 0
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
