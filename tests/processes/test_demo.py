"""The main job as a user runs it: a cluster under attack, beside a vanilla one."""

import pytest
import torch
from safetensors.torch import load_file

from byzsgd.tasks.digits import network

pytestmark = pytest.mark.processes


def test_byzsgd_learns_under_an_attack_that_destroys_the_vanilla_server(
    byzsgd, read_json, tmp_path, left_running
) -> None:
    """One of 5 servers and 2 of 7 workers lie: accuracy as without, vanilla below half."""
    out = tmp_path / "out"

    ran = byzsgd("demo", "--task", "digits", "--out", out, "--json", tmp_path / "figures.json")

    assert ran.status == 0, ran.errors
    figures = read_json(tmp_path / "figures.json")
    expected = {
        "task": "digits",
        "steps": 300,
        "attack": "sign-flip",
        "server_attack": "equivocate",
    }
    expected |= {"n_servers": 5, "f_servers": 1, "n_workers": 7, "f_workers": 2}
    assert figures.items() >= expected.items()
    assert figures["byzsgd"]["accuracy"] >= 0.955, "digits without attack: 0.97 and more"
    assert figures["byzsgd"]["accuracy_worst"] >= 0.945
    assert figures["byzsgd"]["step"] == 300
    assert figures["byzsgd"]["drift_max"] < 0.5
    assert figures["byzsgd"]["steps_per_second"] > 0
    assert figures["vanilla"]["accuracy"] < 0.5
    assert figures["vanilla"]["step"] > 0, "the attack, and no standstill, breaks it"
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")
    lines = (out / "demo.csv").read_text().splitlines()
    assert {line.partition(",")[0] for line in lines[1:]} == {"byzsgd", "vanilla"}
    module = network()
    module.load_state_dict(load_file(out / "model.safetensors"))
    assert all(bool(torch.isfinite(parameter).all()) for parameter in module.parameters())
    assert not left_running()


def test_a_silent_worker_stops_whoever_waits_for_everybody(byzsgd, read_json, tmp_path) -> None:
    """Mute liars: byzsgd never waits for f of them; the vanilla run is given up and says why."""
    figures = tmp_path / "figures.json"

    ran = byzsgd(
        *("demo", "--task", "quadratic", "--steps", "30", "--out", tmp_path, "--json", figures),
        *("--attack", "mute", "--server-attack", "mute"),
    )

    assert ran.status == 0, ran.errors
    found = read_json(figures)
    assert found["byzsgd"]["step"] == 30
    assert found["vanilla"]["step"] == 0
    assert "waits for 2 of 7 gradients of step 0: w5" in found["vanilla"]["stalled"]
