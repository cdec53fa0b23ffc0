"""Reloads: a probe of the application first, then a roll, which replaces one worker at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from maildefer import events
from maildefer.errors import ConfigurationError
from maildefer.handling.periodic.table import PeriodicTask
from maildefer.handling.project.settings import PoolSettings
from maildefer.maildir.system import boottime
from maildefer.pool.context import PoolContext, QueueOfPool
from maildefer.pool.messages import PeriodicTable, ReloadProgress, send
from maildefer.pool.options import PoolOptions
from maildefer.pool.probe import FileWatch, Probe, ProbeReport
from maildefer.pool.supervisor.template_child import TemplateApplication
from maildefer.pool.supervisor.templates import Templates
from maildefer.pool.supervisor.workers import WorkerTable

_MOST_CHARACTERS = 4000  # of an error; it goes through sockets and status files


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedApplication:
    """An application that the probe found sound."""

    report: ProbeReport
    settings: PoolSettings
    queues: tuple[QueueOfPool, ...]

    def why_restart(self, context: PoolContext) -> str:
        """Say why the pool has to be started anew for it, since its shared memory does not fit; else empty."""
        if self.queues != context.queues:
            return "other queues in the settings"
        if self.settings.workers > context.board.most_workers:
            return "more workers in the settings than there is room for"
        return ""

    def after(self, application: TemplateApplication) -> TemplateApplication:
        """What a template loads of it, in the place of that application."""
        return TemplateApplication(
            context=replace(application.context, settings=self.settings),
            report=self.report,
            generation=application.generation + 1,
        )


class Reloader:
    """Probes the application again: when asked to, and with `Router.RELOAD` when its files change."""

    def __init__(self, options: PoolOptions, report: ProbeReport, context: PoolContext) -> None:
        self._options = options
        self._keeper, self._queues = context.keeper[0], context.queues
        self._periodic: tuple[PeriodicTask, ...] | None = (
            report.periodic or None
        )  # None: there never were any
        self._untold: list[PeriodicTable] = []
        self._files = FileWatch(report.files if report.reload else ())
        self._probe: Probe | None = None
        self._asked_meanwhile = False
        self._asked_before_probe = 0  # how many had asked when the probe under way began
        self._asked = self._answered = 0
        self._found: ProbeReport | None = None  # which is to be loaded by a template
        self.refused = ""  # why the last probe found the application broken, for `status`

    @property
    def descriptor(self) -> int | None:
        """The descriptor to poll while a probe is under way."""
        return None if self._probe is None else self._probe.descriptor

    @property
    def progress(self) -> ReloadProgress:
        """The progress, for `maildefer reload`: it is answered once `answered` exceeds what `asked` was before."""
        return ReloadProgress(asked=self._asked, answered=self._answered, refused=self.refused or None)

    def tell_keeper(self) -> None:
        """Send the keeper how the reload stands, which it shows to other hosts, and which tasks are periodic."""
        send(self._keeper, self.progress)
        self._untold = [
            PeriodicTable(
                queue=index, tasks=tuple(one for one in self._periodic or () if one.queue == queue.name)
            )
            for index, queue in enumerate(self._queues)
            if self._periodic is not None and not queue.tokens_only
        ]
        self._tell_tables()

    def _tell_tables(self) -> None:
        """Send what was not sent; a table that does not go now is sent at the next `poll`."""
        while self._untold and send(self._keeper, self._untold[-1]):
            self._untold.pop()

    def request(self) -> None:
        """Count a request; a probe that begins from now on answers it."""
        self._asked += 1
        self._begin_probe()

    def _begin_probe(self) -> None:
        """Start a probe; one that is under way, or a template, may have read old files, so another follows it."""
        if self._probe is not None or self._found is not None:
            self._asked_meanwhile = True
            return
        self._asked_meanwhile = False
        self._asked_before_probe = self._asked
        self._probe = Probe(self._options.project)

    def stop(self) -> None:
        if self._probe is not None:
            self._probe.end()
            self._probe = None

    def poll(self) -> ProbedApplication | None:
        """Return the application once it is known and sound, for a template; `conclude` tells what became of that.

        Raises ConfigurationError when it is broken.
        """
        self._tell_tables()
        if self._files.changed() or (self._asked_meanwhile and self._probe is None and self._found is None):
            self._begin_probe()
        if self._probe is None:
            return None
        try:
            report = self._probe.poll()
            if report is None:
                return None
            if self._options.intake and report.front_end_fault:
                raise ConfigurationError(report.front_end_fault)
            settings = self._options.settings(report)
            found = ProbedApplication(
                report=report, settings=settings, queues=self._options.served(settings, report.routes)
            )
        except ConfigurationError as fault:
            self._probe = None
            self.conclude(str(fault))
            events.emit(
                "application.broken",
                error=str(fault),
                detail="\n".join(getattr(fault, "__notes__", [])) or None,
            )
            raise
        self._probe, self._found = None, report
        return found

    def conclude(self, refused: str) -> None:
        """Answer those who have asked: why the application is refused, or that it is the pool's from now on."""
        self.refused, self._answered = refused[:_MOST_CHARACTERS], self._asked_before_probe
        report, self._found = self._found, None
        if report is not None and not refused:
            self._files = FileWatch(report.files if report.reload else ())
            if report.periodic or self._periodic is not None:
                self._periodic = report.periodic
        self.tell_keeper()


class Roll:
    """A roll under way, to the application that `report` describes."""

    def __init__(self, generation: int, report: ProbeReport) -> None:
        self.report = report
        self._generation = generation

    def step(self, workers: WorkerTable, templates: Templates, wanted: int) -> bool:
        """Retire or fork one worker where that can be done now; True when only new workers are left."""
        if templates.forking:
            return False
        staying = workers.staying()
        old = [child for child in staying if child.generation < self._generation]
        new = [child for child in staying if child.generation >= self._generation]
        starting = [child for child in new if not workers.is_ready(child)]
        if not old and len(new) >= wanted:
            return True
        if starting or workers.throttle.wait(boottime()):
            return False
        if old and len(staying) > wanted:
            workers.retire(old[0], "retired")
        else:
            templates.fork_worker(self._generation)
        return False
