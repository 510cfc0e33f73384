"""Progress for people: a bar on a terminal, plain lines otherwise. Always on standard error."""

from __future__ import annotations

import sys
from typing import Self


class Progress:
    """Plain output: one line for each job that has ended, and for each step before the first."""

    def __init__(self, total: int | None) -> None:
        self.total, self.done = total, 0
        self.running: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def step(self, text: str) -> None:
        """Something that all jobs wait for begins."""
        self.say(text)

    def begin(self, job: str) -> None:
        """A job starts."""
        self.running.append(job)

    def note(self, text: str) -> None:
        """How the present step or job is doing; a log does not want it."""

    def end(self, job: str, outcome: str) -> None:
        """A job has ended."""
        if job in self.running:
            self.running.remove(job)
        self.done += 1
        of = "" if self.total is None else f"/{self.total}"
        self.say(f"{job}: {outcome}", f"[{self.done:>{len(of[1:])}}{of}] ")

    def say(self, line: str, count: str = "") -> None:
        """Shows a line, after how many jobs have ended."""
        print(f"{count}{line}", file=sys.stderr, flush=True)


class Silent(Progress):
    """Says nothing: for a worker, whose parent tells."""

    def say(self, line: str, count: str = "") -> None:
        """Shows nothing."""


class Bar(Progress):
    """A live bar over all jobs with the running ones beside it; ended jobs scroll by above."""

    def __init__(self, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Live

        super().__init__(total)
        columns = (MofNCompleteColumn(), BarColumn(bar_width=24), TimeElapsedColumn(), TextColumn("{task.description}"))
        self.live = Live(*columns, console=Console(stderr=True), transient=True)
        self.bar = self.live.add_task("", total=total)
        self.at = ""

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def step(self, text: str) -> None:
        """Shows beside the bar what begins."""
        self.at = text
        self.live.update(self.bar, description=text)

    def begin(self, job: str) -> None:
        """Shows the job beside the bar."""
        super().begin(job)
        self.step(", ".join(self.running))

    def note(self, text: str) -> None:
        """Shows beside the bar how the present step or job is doing."""
        self.live.update(self.bar, description=f"{self.at}  {text}")

    def say(self, line: str, count: str = "") -> None:
        """Shows a line above the bar, which moves on."""
        self.live.console.print(line, highlight=False, markup=False)
        self.live.update(self.bar, completed=self.done)
        self.step(", ".join(self.running))


def progress(total: int | None) -> Progress:
    """For ``total`` jobs, None if nobody knows: a bar if standard error is a terminal, else lines."""
    return Bar(total) if sys.stderr.isatty() else Progress(total)
