"""A taskset of verifiers with a tool, which runs in a process of its own."""

import verifiers.v1 as vf


class Prices(vf.Toolset[vf.ToolsetConfig, vf.State]):
    TOOL_PREFIX = "shop"

    @vf.tool
    async def price(self, item: str) -> str:
        """What an item costs."""
        return str(len(item) * 10)


class Task(vf.Task[vf.TaskData, vf.State, vf.TaskConfig]):
    @classmethod
    def toolsets(cls, config):
        return [Prices(vf.ToolsetConfig(runtime=vf.SubprocessConfig()))]

    @vf.reward
    async def right(self, trace) -> float:
        return float(trace.last_reply == "30")


class Shop(vf.Taskset[Task, vf.TasksetConfig]):
    def load(self):
        return [Task(vf.TaskData(prompt="What does a pen cost?"), self.config.task) for _ in range(5)]


__all__ = ["Shop"]

if __name__ == "__main__":
    Prices.run()
