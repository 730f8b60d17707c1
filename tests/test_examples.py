"""Every file of `examples/` runs, at a size at which nothing is learned; the notebook in a real kernel."""

import json
import os
import runpy
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import oneloop
from oneloop.cli.main import run as command

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_a_script_runs(script: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONELOOP_STEPS", "2")
    monkeypatch.setattr(sys, "argv", [str(script)])
    runpy.run_path(str(script), run_name="__main__")
    runs = sorted(folder.parent for folder in tmp_path.glob("runs/*/run.json"))
    assert runs and all(oneloop.open_run(folder).status == "finished" for folder in runs)
    assert all(f"<runs/{folder.name} |" in capsys.readouterr().out for folder in runs[:1])


INTERRUPTED = """
import os, signal

def interrupting(completions, **columns):
    interrupting.calls += 1
    if interrupting.calls == 2:
        os.kill(os.getpid(), signal.SIGINT)  # what the stop button sends
    return [float(len(text)) for text in completions]

interrupting.calls = 0
stopped = oneloop.fit(
    "reinforce", model="scratch:tiny", data=rows, reward=interrupting, steps=50, prompts_per_step=2, max_new_tokens=2,
    score_early=False, out="runs/stopped",
)
print(stopped.status, len(stopped.metrics()), signal.getsignal(signal.SIGINT) is not signal.SIG_DFL)
"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """The notebook of the examples, with one more cell whose run is interrupted, as a kernel left them."""
    home = tmp_path_factory.mktemp("notebook")
    book = nbformat.read(EXAMPLES / "first_run.ipynb", as_version=4)
    book.cells.append(nbformat.v4.new_code_cell(INTERRUPTED))
    places = {name: str(home / name.lower()) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR")}
    env = {
        **os.environ,
        **places,
        "ONELOOP_STEPS": "3",
        "OMP_NUM_THREADS": "1",  # as the tests' own process
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    client = NotebookClient(book, timeout=600, resources={"metadata": {"path": str(home)}})
    client.execute(env=env)
    return home, [cell for cell in book.cells if cell.cell_type == "code"]


def data_of(cell, kind: str) -> list[str]:
    return [output["data"][kind] for output in cell.outputs if kind in output.get("data", {})]


def test_a_kernel_trains_the_same_weights_as_the_command(notebook, tmp_path: Path) -> None:
    home, _ = notebook
    sums = [(a, b) for a in range(10) for b in range(10)]
    rows = [{"prompt": f"{a}+{b}=", "answer": str(a + b), "completion": str(a + b)} for a, b in sums]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "exact.py").write_text(
        "def exact(completions, answer, **columns):\n"
        "    return [float(text.strip() == right) for text, right in zip(completions, answer)]\n"
    )
    sft = "train sft --model scratch:tiny --steps 3 --learning-rate 3e-3"
    grpo = "train grpo --steps 1 --prompts-per-step 16 --max-new-tokens 4 --learning-rate 2e-4 --set kl=none"
    data = ["--data", str(tmp_path / "rows.jsonl")]
    start, reward = str(tmp_path / "sft" / "final"), f"{tmp_path}/exact.py:exact"
    assert command([*sft.split(), *data, "--out", str(tmp_path / "sft")]) == 0
    out = str(tmp_path / "grpo")
    assert command([*grpo.split(), *data, "--model", start, "--reward", reward, "--out", out]) == 0
    for name in ("sft", "grpo"):
        weights = [place / "final" / "model.safetensors" for place in (home / f"runs/notebook_{name}", tmp_path / name)]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_notebook_shows_what_happens_in_place(notebook) -> None:
    _, cells = notebook
    bar, summary = data_of(cells[1], "text/html")  # the bar is one output, however many steps there were
    assert 'value="3" max="3"' in bar and "step 3/3" in bar and "models in memory: policy" in bar
    # stderr has what tqdm says about a missing ipywidgets when transformers is loaded
    assert not [output for output in cells[1].outputs if output.get("name") == "stdout"]
    assert "sft: finished after 3 steps" in summary
    assert data_of(cells[2], "image/png") and data_of(cells[4], "image/png")
    assert "<th>reward</th>" in data_of(cells[5], "text/html")[0]


def test_the_stop_button_ends_a_run_and_the_cell_has_it(notebook) -> None:
    home, cells = notebook
    printed = [output.text for output in cells[-1].outputs if output.output_type == "stream"]
    assert printed == ["stopped 2 True\n"]
    assert "stopped by signal 2 after step 2" in data_of(cells[-1], "text/html")[0]
    assert (home / "runs" / "stopped" / "checkpoints" / "step_000002" / "policy").is_dir()


def test_every_example_is_named_on_the_page() -> None:
    page = (EXAMPLES.parent / "docs" / "python.md").read_text(encoding="utf-8")
    assert all(f"`examples/{path.name}`" in page for path in EXAMPLES.iterdir() if path.is_file())
