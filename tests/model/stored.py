"""The entities that a manager stores, and the requests that read them."""

from collections.abc import Iterator

from tests.model.entities import Answer, Entity, Job, Stage, Task, Wording, progress

ANY_MESSAGE = Wording()


def refused(status: int, code: str, message: str | Wording = ANY_MESSAGE) -> Answer:
    """A refusal, which changes nothing."""
    return Answer(status, {"message": message, "code": code})


NO_JOB = refused(404, "JOB_NOT_FOUND")
NO_STAGE = refused(404, "STAGE_NOT_FOUND")
NO_TASK = refused(404, "TASK_NOT_FOUND")


class Stored:
    """Jobs, stages and tasks by their ids, oldest first. Parameters have the names and the text of a query."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.stages: dict[str, Stage] = {}
        self.tasks: dict[str, Task] = {}

    def entities(self) -> Iterator[tuple[str, Entity]]:
        """All entities with their names."""
        for entities in (self.jobs, self.stages, self.tasks):
            yield from entities.items()

    def get_job(
        self, job_id: str, *, should_return_stages: str = "false", should_return_progress: str = "false"
    ) -> Answer:
        """One job."""
        job = self.jobs.get(job_id)
        if job is None:
            return NO_JOB
        more = progress(job) if should_return_progress == "true" else {}
        return Answer(200, job.json(with_stages=should_return_stages == "true") | more)

    def list_jobs(self, *, job_name: str, priority: str | None = None, should_return_stages: str = "false") -> Answer:
        """The jobs that match, oldest first."""
        found = [job for job in self.jobs.values() if job.name == job_name and priority in (None, job.priority)]
        return Answer(200, [job.json(with_stages=should_return_stages == "true") for job in found])

    def list_stages_of_job(self, job_id: str, *, should_return_tasks: str = "false") -> Answer:
        """A job's stages by their order."""
        job = self.jobs.get(job_id)
        if job is None:
            return NO_JOB
        return Answer(200, [stage.json(with_tasks=should_return_tasks == "true") for stage in job.stages])

    def list_stages(
        self, *, stage_type: str, stage_operation_status: str | None = None, should_return_tasks: str = "false"
    ) -> Answer:
        """The stages that match, by job and order."""
        found = [
            stage
            for job in self.jobs.values()
            for stage in job.stages
            if stage.type == stage_type and stage_operation_status in (None, stage.status)
        ]
        return Answer(200, [stage.json(with_tasks=should_return_tasks == "true") for stage in found])

    def get_stage(
        self, stage_id: str, *, should_return_tasks: str = "false", should_return_progress: str = "false"
    ) -> Answer:
        """One stage."""
        stage = self.stages.get(stage_id)
        if stage is None:
            return NO_STAGE
        more = progress(stage) if should_return_progress == "true" else {}
        return Answer(200, stage.json(with_tasks=should_return_tasks == "true") | more)

    def get_summary(self, stage_id: str) -> Answer:
        """The number of tasks of a stage by their status."""
        stage = self.stages.get(stage_id)
        return Answer(200, stage.summary()) if stage else NO_STAGE

    def list_tasks_of_stage(self, stage_id: str) -> Answer:
        """A stage's tasks, oldest first."""
        stage = self.stages.get(stage_id)
        return Answer(200, [task.json() for task in stage.tasks]) if stage else NO_STAGE

    def list_tasks(self, *, stage_type: str, status: str | None = None) -> Answer:
        """The tasks that match, oldest first."""
        found = [
            task for task in self.tasks.values() if task.stage.type == stage_type and status in (None, task.status)
        ]
        return Answer(200, [task.json() for task in found])

    def get_task(self, task_id: str) -> Answer:
        """One task."""
        task = self.tasks.get(task_id)
        return Answer(200, task.json()) if task else NO_TASK

    def list_attempts(self, task_id: str) -> Answer:
        """The attempts at a task, oldest first."""
        task = self.tasks.get(task_id)
        return Answer(200, task.attempts_json()) if task else NO_TASK

    def get_history(self, kind: str, entity_id: str) -> Answer:
        """Every change of status of a job, a stage or a task, oldest first."""
        entity = dict(self.entities()).get(entity_id)
        return Answer(200, entity.changes) if entity else refused(404, f"{kind.removesuffix('s').upper()}_NOT_FOUND")

    def get_depth(self, stage_type: str) -> Answer:
        """How many tasks can be claimed, and how many are in progress in stages that have not ended."""
        stages = [stage for stage in self.stages.values() if stage.type == stage_type]
        waiting = [task for stage in stages if stage.open for task in stage.tasks if task.waiting]
        running = [task for stage in stages if not stage.ended for task in stage.tasks if task.at_work]
        total = len(waiting) + len(running)
        return Answer(200, {"waiting": len(waiting), "inProgress": len(running), "total": total})

    def get_queue(self) -> Answer:
        """The place in the queue of each task of a stage that is not aborted; see ``tables.sql``."""
        stages = [stage for job in self.jobs.values() for stage in job.stages if stage.status != "ABORTED"]
        return Answer(200, [task.queue_json() for stage in stages for task in stage.tasks])
