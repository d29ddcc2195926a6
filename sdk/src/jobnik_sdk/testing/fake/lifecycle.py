"""Transitions of jobs, stages and tasks: along the edges of the state machines, with their effects."""

from jobnik_sdk.model.definitions import JobStatus, StageStatus, TaskStatus
from jobnik_sdk.testing.fake.state import Change, Job, Stage, State, Task
from jobnik_sdk.testing.fake.transitions import JOB, JOB_FINAL, STAGE, STAGE_FINAL, TASK, TASK_FINAL, Effect


class Lifecycle:
    """Changes the statuses of entities. A transition without an edge is a `KeyError`; callers check requests first."""

    def __init__(self, state: State) -> None:
        self._state = state

    def move_job(self, job: Job, target: JobStatus) -> None:
        """Change the status of a job, with the effects of the edge."""
        edge, now = JOB[job.status, target], self._state.now
        job.changes.append(Change(job.status, target, now, edge.by, edge.reason))
        job.status, job.updated = target, now
        if target in JOB_FINAL:
            job.ended = now
        for effect in edge.effects:
            self._apply_to_job(effect, job)

    def move_stage(self, stage: Stage, target: StageStatus) -> None:
        """Change the status of a stage, with the effects of the edge."""
        edge, now = STAGE[stage.status, target], self._state.now
        stage.changes.append(Change(stage.status, target, now, edge.by, edge.reason))
        stage.status, stage.updated = target, now
        if target is StageStatus.IN_PROGRESS:
            stage.started = now
        elif target in STAGE_FINAL:
            stage.ended = now
        for effect in edge.effects:
            self._apply_to_stage(effect, stage)

    def move_task(self, task: Task, target: TaskStatus) -> None:
        """Change the status of a task, with the effects of the edge; its attempts are its history."""
        edge, now = TASK[task.status, target], self._state.now
        task.stage.counts[task.status] -= 1
        task.stage.counts[target] += 1
        task.status, task.updated = target, now
        if target is TaskStatus.IN_PROGRESS:
            task.started = now
        elif target in TASK_FINAL:
            task.ended = now
        for effect in edge.effects:
            self._apply_to_task(effect, task)

    def _apply_to_job(self, effect: Effect, job: Job) -> None:
        match effect:
            case Effect.ABORT_STAGES:
                for stage in job.stages:
                    if stage.status not in STAGE_FINAL:
                        self.move_stage(stage, StageStatus.ABORTED)
            case Effect.ABORT_TASKS:
                for stage in job.stages:
                    self._abort_tasks(stage)
            case Effect.CLOSE_QUEUES | Effect.OPEN_QUEUES:
                pass  # `Stage.open` follows from the statuses
            case _:
                raise AssertionError(f"{effect} is not an effect of a job's transition")

    def _apply_to_stage(self, effect: Effect, stage: Stage) -> None:
        job = stage.job
        match effect:
            case Effect.START_JOB:
                self._start_job(job)
            case Effect.OPEN_NEXT_STAGE:
                for following in job.stages[stage.order : stage.order + 1]:
                    if following.status is StageStatus.CREATED:
                        self.move_stage(following, StageStatus.PENDING)
            case Effect.COMPLETE_JOB:
                job.updated = self._state.now
                if job.status not in JOB_FINAL and all(one.status is StageStatus.COMPLETED for one in job.stages):
                    self.move_job(job, JobStatus.COMPLETED)
            case Effect.FAIL_JOB:
                if job.status not in JOB_FINAL:
                    self.move_job(job, JobStatus.FAILED)
            case Effect.ABORT_TASKS:
                self._abort_tasks(stage)
            case _:
                raise AssertionError(f"{effect} is not an effect of a stage's transition")

    def _apply_to_task(self, effect: Effect, task: Task) -> None:
        stage = task.stage
        match effect:
            case Effect.START_STAGE:
                if stage.status is StageStatus.PENDING:
                    self.move_stage(stage, StageStatus.IN_PROGRESS)
            case Effect.START_JOB:
                self._start_job(stage.job)
            case Effect.COMPLETE_STAGE:
                is_last = stage.counts[TaskStatus.COMPLETED] == len(stage.tasks)
                if is_last and stage.status is StageStatus.IN_PROGRESS:
                    self.move_stage(stage, StageStatus.COMPLETED)
            case Effect.FAIL_STAGE:
                if stage.status is StageStatus.IN_PROGRESS:
                    self.move_stage(stage, StageStatus.FAILED)
            case _:
                raise AssertionError(f"{effect} is not an effect of a task's transition")

    def _start_job(self, job: Job) -> None:
        if job.status is JobStatus.PENDING:
            self.move_job(job, JobStatus.IN_PROGRESS)

    def _abort_tasks(self, stage: Stage) -> None:
        stage.waiting.clear()
        for task in stage.tasks:
            if task.status in TASK_FINAL:
                continue
            if task.status is TaskStatus.IN_PROGRESS:
                attempt = task.attempts[-1]
                attempt.outcome, attempt.ended = "ABORTED", self._state.now
                self._state.leased.pop(attempt.lease_id, None)
            self.move_task(task, TaskStatus.ABORTED)
