"""A taskset of verifiers with an environment of its own, which plays the user; and with seats no policy can fill."""

import verifiers.v1 as vf


class Data(vf.TaskData):
    secret: int


class Task(vf.Task[Data, vf.State, vf.TaskConfig]): ...


class Config(vf.TasksetConfig):
    asks: str = "one"


class EnvConfig(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig(max_turns=3)
    other: vf.AgentConfig = vf.AgentConfig()


class Number(vf.Env[EnvConfig]):
    async def setup(self, agents):
        agents.other.trainable = self.config.taskset.asks == "two"

    async def run(self, task, agents):
        async with agents.player.interaction(task) as player:
            segment = await player.turn()
            while not segment.terminated and segment.last_reply != str(task.data.secret):
                low = int(segment.last_reply) < task.data.secret
                segment = await player.turn("higher" if low else "lower")
        player.trace.record_reward("found", float(not segment.terminated))
        if self.config.taskset.asks != "one":
            await agents.other.run(vf.Task(vf.TaskData(prompt="And you?")))


class Numbers(vf.Taskset[Task, Config]):
    def load(self):
        return [Task(Data(prompt="Guess.", secret=n), self.config.task) for n in range(10)]


__all__ = ["Number", "Numbers"]
