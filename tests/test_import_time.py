"""`import oneloop` and `oneloop --help` load neither torch nor transformers."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "tyro", "pyarrow", "scipy", "matplotlib")


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('\\n' + ' '.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "code",
    [
        "import oneloop",
        "from oneloop.cli.main import run; run(['--help'])",
        "from oneloop.cli.main import run; run([])",
    ],
)
def test_heavy_libraries_stay_out(code: str) -> None:
    assert not modules_after(code) & set(HEAVY)


def test_the_check_sees_torch_when_it_is_loaded() -> None:
    assert "torch" in modules_after("import oneloop; oneloop.GRPO")


def test_every_public_name_exists() -> None:
    import oneloop

    for name in oneloop.__all__:
        assert getattr(oneloop, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'grpo'"):
        oneloop.grpo  # noqa: B018
