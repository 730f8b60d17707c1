"""A taskset of verifiers in one turn: two rewards, of which one counts half."""

import verifiers.v1 as vf


class Data(vf.TaskData):
    answer: int


class Task(vf.Task[Data, vf.State, vf.TaskConfig]):
    @vf.reward
    async def right(self, trace) -> float:
        if trace.last_reply == "raise":
            raise ValueError("no such answer")
        return float(trace.last_reply == str(self.data.answer))

    @vf.reward(weight=0.5)
    async def turns(self, trace) -> float:
        return float(trace.num_turns)


class Config(vf.TasksetConfig):
    most: int = 12


class Sums(vf.Taskset[Task, Config]):
    def load(self):
        for n in range(self.config.most):
            data = Data(name=f"sum {n}", prompt=f"{n}+{n}=", system_prompt="Add.", answer=2 * n)
            yield Task(data, self.config.task)


__all__ = ["Sums"]
