"""The command line: what it writes, and its exit status."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from jacometry import __version__
from jacometry.cli import main


@pytest.fixture
def model(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {f"weights_{k}": rng.standard_normal((9, 9)) / 3 for k in range(12)}
    np.savez(tmp_path / "model.npz", **arrays, activations=np.array("tanh"))
    return str(tmp_path / "model.npz")


@pytest.fixture
def sick_model(tmp_path):
    arrays = {f"weights_{k}": np.eye(4) / 10 for k in range(12)}
    np.savez(tmp_path / "sick.npz", **arrays, activations=np.array("relu"))
    return str(tmp_path / "sick.npz")


def test_analyze_prints_the_report_and_says_that_inputs_are_gaussian(model, capsys):
    assert main(["analyze", model]) == 0
    out, err = capsys.readouterr()
    assert "VERDICT  HEALTHY" in out
    assert "standard Gaussian inputs" in out
    assert err == ""


def test_analyze_takes_inputs_and_writes_files(model, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(1).standard_normal((5, 9)))
    html, out_json = tmp_path / "r.html", tmp_path / "r.json"
    arguments = ["--input", str(tmp_path / "x.npy"), "--html", str(html), "--json", str(out_json)]
    assert main(["analyze", model, *arguments]) == 0
    assert "5 samples" in capsys.readouterr().out
    assert "<h1>" in html.read_text(encoding="utf-8")
    assert json.loads(out_json.read_text())["n_samples"] == 5


def test_json_on_stdout_is_only_json(model, tmp_path, capsys):
    assert main(["analyze", model, "--json", "-", "--html", str(tmp_path / "r.html")]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["verdict"] == "healthy"
    assert "r.html" in err


def test_a_seed_makes_the_answer_reproducible(model, capsys):
    answers = []
    for _ in range(2):
        main(["analyze", model, "--json", "-", "--seed", "7"])
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]


def test_check_sets_the_exit_status(model, sick_model, capsys):
    assert main(["analyze", model, "--check"]) == 0
    assert main(["analyze", sick_model]) == 0
    assert main(["analyze", sick_model, "--check"]) == 1
    assert "VANISHING" in capsys.readouterr().out


def test_open_shows_the_report(model, tmp_path, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    monkeypatch.chdir(tmp_path)
    assert main(["analyze", model, "--open"]) == 0
    assert shown == [(tmp_path / "jacometry-report.html").resolve().as_uri()]


def broken_files(folder):
    whole = folder / "whole.npz"
    arrays = {"weights_0": np.eye(3), "activations": np.array(["identity"])}
    np.savez(whole, **arrays)
    (folder / "text.npz").write_text("weights: none\n")
    (folder / "empty.npz").write_bytes(b"")
    (folder / "cut.npz").write_bytes(whole.read_bytes()[:200])
    np.savez(
        folder / "pickle.npz", weights_0=np.array([print], object), activations=np.array("relu")
    )
    np.savez(folder / "shape.npz", weights_0=np.ones((2, 3)), weights_1=np.ones((2, 3)),
             activations=np.array("relu"))  # fmt: skip
    np.savez(folder / "nan.npz", **(arrays | {"weights_0": np.full((3, 3), np.nan)}))
    np.savez(folder / "swish.npz", **(arrays | {"activations": np.array(["sw\nish\x1b[31m"])}))
    np.savez_compressed(folder / "bomb.npz", **(arrays | {"weights_0": np.zeros((4000, 4000))}))
    (folder / "folder.npz").mkdir()
    names = ["text", "empty", "cut", "pickle", "shape", "nan", "swish", "bomb", "folder", "absent"]
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "fifo.npz")
        names.append("fifo")
    return [str(folder / f"{name}.npz") for name in names]


def test_files_that_are_not_models_give_one_line_and_status_2(tmp_path, capsys):
    for path in broken_files(tmp_path):
        assert main(["analyze", path]) == 2, path
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert err.startswith("jacometry: error: ")
        assert os.path.basename(path) in err
        assert "Traceback" not in err
        assert "\x1b" not in err


def test_inputs_that_do_not_fit_give_one_line_and_status_2(model, tmp_path, capsys):
    x = tmp_path / "x.npy"
    for content, message in (
        (np.ones((3, 4)), "9 inputs"),
        (np.full((3, 9), np.nan), "finite"),
        (np.ones((0, 9)), "at least one sample"),
        (np.array([[{}]], object), "pickled"),
        (np.array(["a"]), "x must"),
    ):
        np.save(x, content, allow_pickle=True)
        assert main(["analyze", model, "--input", str(x)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert message in err
    x.write_text("1,2,3")
    assert main(["analyze", model, "--input", str(x)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frob"],
        ["analyze"],
        ["analyze", "m.npz", "--frob"],
        ["analyze", "m.npz", "--seed", "-1"],
        ["analyze", "m.npz", "--seed", "x"],
        ["demo", "x"],
        ["phase"],
        ["phase", "tanh", "--points", "1"],
        ["phase", "tanh", "--sigma-w", "2", "1"],
        ["phase", "tanh", "--sigma-b", "-1", "1"],
        ["critical"],
        ["critical", "tanh", "--sigma-b", "x"],
        ["critical", "tanh", "--sigma-b", "1", "--q-star", "1"],
    ],
)
def test_usage_errors_are_one_line_and_status_2(arguments, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "--help" in err


def test_unwritable_output_is_one_line_and_status_2(model, tmp_path, capsys):
    assert main(["analyze", model, "--html", str(tmp_path / "no" / "r.html")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_phase_prints_the_critical_line_and_draws(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path = tmp_path / "p.png"
    assert main(["phase", "erf", "--points", "12", "--plot", str(path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "ordered" in out
    assert "chaotic" in out
    assert "0.886226925             0" in out  # sigma_b = 0: sqrt(pi) / 2, q* = 0
    assert str(path) in out
    assert path.read_bytes().startswith(b"\x89PNG")


def test_phase_says_where_there_is_no_critical_point(capsys):
    assert main(["phase", "relu", "--points", "4"]) == 0
    out = capsys.readouterr().out
    assert "divergent" in out
    assert out.count("none") == 4  # at every sigma_b but 0
    assert "any" in out


def test_critical_prints_the_point_and_what_it_is_worth(capsys):
    assert main(["critical", "tanh", "--q-star", "1"]) == 0
    out = capsys.readouterr().out
    assert "1.46741359163" in out
    assert "2.1533026489 / fan_in" in out
    assert main(["critical", "relu"]) == 0
    assert "any" in capsys.readouterr().out
    assert main(["critical", "gelu", "--sigma-b", "0.1"]) == 0
    out = capsys.readouterr().out
    assert "1.72707827531" in out
    assert "repels" in out
    assert "divergent" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["critical", "tanh"], "give sigma_b or q_star"),
        (["critical", "relu", "--sigma-b", "1"], "sigma_b = 0 only"),
        (["critical", "nope"], "activation must be one of"),
        (["phase", "nope"], "activation must be one of"),
        (["critical", "tanh", "--sigma-b", "-1"], "sigma_b must lie in"),
        (["phase", "tanh", "--points", "3", "--plot", "no/such/folder.png"], "no/such/folder.png"),
    ],
)
def test_mean_field_errors_are_one_line_and_status_2(arguments, message, capsys):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err


def test_demo_tells_the_story_and_writes_the_page(tmp_path, capsys):
    path = tmp_path / "demo.html"
    assert main(["demo", "--html", str(path)]) == 0
    out = capsys.readouterr().out
    assert str(path) in out
    for part in ("VERDICT  VANISHING", "0.0557", "sigmoid, Xavier", "tanh, Xavier", "ReLU, He",
                 "held-out accuracy"):  # fmt: skip
        assert part in out
    page = path.read_text(encoding="utf-8")
    assert page.count("<section") == 3
    assert "0.0557" in page
    assert page.count("vanishing</span>") == 2
    assert page.count("healthy</span>") == 4


def test_demo_exits_with_0_even_if_it_cannot_write(tmp_path, capsys):
    assert main(["demo", "--html", str(tmp_path / "no" / "demo.html")]) == 0
    assert "could not be written" in capsys.readouterr().err


def test_config_says_the_version(capsys):
    assert main(["config"]) == 0
    assert __version__ in capsys.readouterr().out


def test_python_m_jacometry_runs(tmp_path):
    run = [sys.executable, "-m", "jacometry"]
    done = subprocess.run(
        [*run, "analyze", "absent.npz"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "jacometry: error: absent.npz: No such file or directory\n"
    assert subprocess.run([*run, "--help"], capture_output=True, cwd=tmp_path).returncode == 0


def test_a_reader_that_leaves_is_no_error():
    command = [sys.executable, "-m", "jacometry", "critical", "relu"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, env=buffered, **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0
