"""The manifests in deploy/: what they run is run here, by the shell that would run it there.

No cluster and no image is made: what a kubelet does with the rest is not tried.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from commands import environment, serving

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


# What serves


SERVE = JOB.with_name("serve.yaml")
DEPLOY = SERVE.parent.parent


def manifest(kind: str) -> dict[str, Any]:
    """Return the object of that kind."""
    [found] = [one for one in yaml.safe_load_all(SERVE.read_text()) if one["kind"] == kind]
    one: dict[str, Any] = found
    return one


def test_the_server_of_the_manifest_starts_and_answers_its_probes() -> None:
    """Its own arguments, on free ports of this machine; the probes as a kubelet asks them."""
    pytest.importorskip("prometheus_client")
    [one] = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in one["ports"]}
    arguments = [
        argument.replace(f"0.0.0.0:{port}", "127.0.0.1:0")
        for argument in one["args"]
        for port in [ports["metrics" if "metrics" in argument else "echo"]]
    ]
    [instance] = one["env"]
    with serving(*arguments, env={instance["name"]: "pod-7"}) as server:
        said = b""
        while b"metrics on http://" not in said:
            assert server.process.stderr is not None
            said = server.process.stderr.readline()
        where = said.partition(b"http://")[2].partition(b"/metrics")[0].decode()
        for probe in ("readinessProbe", "livenessProbe"):
            asked = http.client.HTTPConnection(where, timeout=10)
            with closing(asked):
                asked.request("GET", one[probe]["httpGet"]["path"])
                assert asked.getresponse().status == 200
        with server.connect() as peer:
            line = peer.makefile().readline()
        assert json.loads(line)["instance"] == "pod-7"
        server.process.kill()
        server.end()


def test_a_pod_has_the_time_that_its_server_takes_to_end() -> None:
    spec = manifest("Deployment")["spec"]["template"]["spec"]
    [one] = spec["containers"]
    seconds = {
        name: float(text) for name, _, text in (word.partition("=") for word in one["args"])
        if name in ("--drain-delay", "--graceful-timeout")
    }  # fmt: skip
    probe = one["readinessProbe"]
    assert seconds["--drain-delay"] > probe["periodSeconds"] * probe["failureThreshold"]
    assert spec["terminationGracePeriodSeconds"] > sum(seconds.values())


def test_the_service_finds_the_pods() -> None:
    deployment, service = manifest("Deployment")["spec"], manifest("Service")["spec"]
    assert service["selector"] == deployment["selector"]["matchLabels"]
    assert service["selector"].items() <= deployment["template"]["metadata"]["labels"].items()
    [port] = service["ports"]
    [one] = deployment["template"]["spec"]["containers"]
    assert port["targetPort"] in [each["name"] for each in one["ports"]]


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
def test_haproxy_takes_its_configuration() -> None:
    command = ["haproxy", "-c", "-f", str(DEPLOY / "haproxy.cfg")]
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
