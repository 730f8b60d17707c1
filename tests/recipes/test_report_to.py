"""A run with loggers: the files come first, and no logger ends it."""

from dataclasses import replace
from pathlib import Path

from oneloop.config import default_run
from oneloop.recipes.execute import execute
from oneloop.record import sinks
from oneloop.record.reader import read_run
from toy_models import Silent


class Breaking:
    """A logger that breaks in the middle of the run, and looks into the run's files at each call."""

    def __init__(self, opening: sinks.Opening) -> None:
        self.opening, self.told = opening, []

    def scalars(self, done, values) -> None:
        if done:
            assert read_run(self.opening.folder).metrics[-1]["step"] == done - 1, "the file's line comes first"
        self.told.append(done)
        if done == 2:
            raise TimeoutError("nobody answers")

    def event(self, done, code, text) -> None:
        self.told.append(code)

    def close(self, *, failed) -> None:
        raise AssertionError("it was told after it had failed")


def test_a_logger_that_breaks_amid_a_run_leaves_it_as_it_is(tmp_path: Path, monkeypatch) -> None:
    opened: list[Breaking] = []

    class Module:
        @staticmethod
        def open_sink(opening):
            opened.append(Breaking(opening))
            return opened[0]

    monkeypatch.setattr(sinks, "import_module", {"oneloop.record.to_wandb": Module}.__getitem__)
    monkeypatch.setattr(sinks, "find_spec", lambda name: name)
    run = replace(default_run("sft"), model="scratch:tiny", data="task:addition", steps=4, prompts_per_step=4)
    run = replace(run, data_size=32, eval_size=8, eval_every=2)
    told, plain = (replace(run, out=str(tmp_path / name), report_to=to) for name, to in (("a", ("wandb",)), ("b", ())))
    watcher = Silent()
    record, other = read_run(execute(told, watcher)), read_run(execute(plain, Silent()))
    assert record.info["status"] == "finished"
    assert record.series("loss") == other.series("loss") and len(record.metrics) == 4
    (event,) = [event for event in record.events if event["code"] == "A_LOGGER"]
    assert event["step"] == 1 and "nobody answers" in event["text"]
    assert any("A_LOGGER" in line for line in watcher.lines)
    assert opened[0].told == [0, 1, 2], "steps as people count them; 0 is before the first"
    assert (opened[0].opening.name, opened[0].opening.config["algorithm"]) == ("a", "sft")


def test_a_missing_package_stops_a_run_before_it_has_a_folder(tmp_path: Path, monkeypatch) -> None:
    import pytest

    from oneloop.errors import ConfigError

    monkeypatch.setattr(sinks, "find_spec", lambda name: None)
    run = replace(default_run("sft"), model="scratch:tiny", out=str(tmp_path / "run"), report_to=("trackio",))
    with pytest.raises(ConfigError, match=r"oneloop\[trackio\]"):
        execute(run, Silent())
    assert not (tmp_path / "run").exists()
