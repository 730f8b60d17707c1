"""Episodes written by hand, as an environment leaves them: with tools, cut, failed, and in the form of older runs."""

from dataclasses import replace

from oneloop.rewards.played import PlayedScorer
from oneloop.types import Call, Completion, Prompt, Reward, StopReason, Trajectory, Turn

PROMPT = Prompt(id="0", text="37*4+1=", tokens=(1, 2, 3))


def turn(start: int, end: int, text: str, reward: float | None, **more) -> Turn:
    return Turn(role="assistant", text=text, chosen=True, span=(start, end), reward=reward, **more)


def said(text: str, span: tuple[int, int] | None = None, role: str = "tool") -> Turn:
    return Turn(role=role, text=text, span=span)


def episode(turns: list[Turn], stop: StopReason, sample: int = 0, **failures: str) -> Trajectory:
    """Scored as the loop does it. Token ids count from 100."""
    ends = [turn.span[1] for turn in turns if turn.span]
    length = max(ends, default=0)
    given = tuple(turn.span for turn in turns if turn.span and not turn.chosen)
    item = Trajectory(
        prompt=PROMPT, group=0, sample=sample, text="".join(turn.text for turn in turns), turns=tuple(turns),
        completion=Completion(
            tokens=tuple(range(100, 100 + length)), logprobs=(0.0,) * length, stop=stop, given=given
        ),
        reward=Reward(value=None, failures=failures),
    )  # fmt: skip
    return PlayedScorer("game")([item])[0]


def episodes() -> list[Trajectory]:
    calls = [Call(name="calculator", arguments="37*4", answer="148;"), Call(name="", arguments="{", answer="error;")]
    tools = episode(
        [
            turn(0, 7, "[37*4]{", 0.25, calls=tuple(calls), advantage=0.5),
            said("148;", (7, 17)), said("error;"),
            turn(17, 21, "149", 1.0, terminated=True, advantage=1.5),
            said("right;"),
        ],
        StopReason.ENVIRONMENT,
    )  # fmt: skip
    limit = episode(
        [
            turn(0, 2, "J", -0.5, advantage=-1.0), said("lower;", (2, 8), "user"),
            turn(8, 10, "K", -0.5, advantage=-1.0), said("lower;", (10, 16), "user"),
        ],
        StopReason.TURNS,
        1,
    )  # fmt: skip
    half = episode([turn(0, 4, "JJJJ", None, advantage=-0.5)], StopReason.LENGTH, 2)
    failed = episode([turn(0, 2, "J", None)], StopReason.ERROR, 3, game="turn 1: step raised ValueError: no J")
    return [tools, limit, half, failed]


def cut_by_the_environment() -> Trajectory:
    item = episodes()[1]
    return replace(item, turns=(*item.turns[:2], replace(item.turns[2], truncated=True), item.turns[3]))


OLD = '[{"role": "assistant", "text": "J", "reward": 0.0}, {"role": "user", "text": "lower;"}]'
"""The column of a run that was recorded before the file said who chose what."""
