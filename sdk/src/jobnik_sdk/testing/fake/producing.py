"""The endpoints of producers: jobs, stages, tasks."""

from collections.abc import Sequence
from datetime import datetime

from jobnik_sdk.model.definitions import JobStatus
from jobnik_sdk.testing.fake import bodies, queries, wire
from jobnik_sdk.testing.fake.endpoints import Endpoints, Route, done
from jobnik_sdk.testing.fake.queries import Query
from jobnik_sdk.testing.fake.requests import MINIMAL, Answer, Asked, page_of
from jobnik_sdk.testing.fake.state import Job, Stage, Task


class JobEndpoints(Endpoints):
    """What is asked of jobs."""

    def routes(self) -> Sequence[Route]:
        """All of them."""
        return (
            Route("POST", "/v1/jobs", self._create),
            Route("GET", "/v1/jobs", self._list),
            Route("GET", "/v1/jobs/{id}", self._get),
            Route("DELETE", "/v1/jobs/{id}", self._delete),
            Route("PATCH", "/v1/jobs/{id}/user-metadata", self._setting_metadata(self._job, "JOB")),
            Route("PATCH", "/v1/jobs/{id}/priority", self._set_priority),
            Route("PUT", "/v1/jobs/{id}/status", self._set_status),
            Route("GET", "/v1/jobs/{id}/history", self._history, part_b=True),
        )

    def _create(self, asked: Asked) -> Answer:
        asked.query(Query)
        body = asked.body(bodies.PlainJobBody if self._part_a_only else bodies.JobBody)
        job, new = self._jobs.create(body, asked.trace())
        return Answer(201 if new else 200, wire.job_json(job, stages="stages" in body.model_fields_set))

    def _list(self, asked: Asked) -> Answer:
        query = asked.query(queries.JobQuery)
        found = [
            ((job.number, 0), job)
            for job in self._state.jobs.values()
            if query.job_name in {None, job.name}
            and query.priority in {None, job.priority}
            and _created_between(job, query.from_date, query.end_date)
        ]
        return page_of(asked, query, found, lambda job: wire.job_json(job, stages=query.should_return_stages))

    def _get(self, asked: Asked) -> Answer:
        query = asked.query(queries.OneJobQuery)
        job = wire.job_json(self._job(asked), stages=query.should_return_stages)
        if query.should_return_progress:
            job |= wire.job_progress(self._job(asked), self._state.now())
        return Answer(200, job)

    def _delete(self, asked: Asked) -> Answer:
        asked.query(Query)
        self._jobs.delete(self._job(asked))
        return done("JOB_DELETED_SUCCESSFULLY")

    def _set_priority(self, asked: Asked) -> Answer:
        asked.query(Query)
        body = asked.body(bodies.PriorityBody)
        if self._jobs.set_priority(self._job(asked), body.priority):
            return done("JOB_MODIFIED_SUCCESSFULLY")
        return Answer(204, headers={"Reason": "The job has this priority already"})

    def _set_status(self, asked: Asked) -> Answer:
        asked.query(Query)
        body = asked.body(bodies.JobStatusBody)
        self._jobs.set_status(self._job(asked), JobStatus(body.status))
        return done("JOB_MODIFIED_SUCCESSFULLY")

    def _history(self, asked: Asked) -> Answer:
        asked.query(Query)
        return Answer(200, wire.changes_json(self._job(asked).changes))


class StageEndpoints(Endpoints):
    """What is asked of stages."""

    def routes(self) -> Sequence[Route]:
        """All of them."""
        return (
            Route("GET", "/v1/jobs/{id}/stages", self._list_of_job),
            Route("POST", "/v1/jobs/{id}/stage", self._add),
            Route("GET", "/v1/stages", self._list),
            Route("GET", "/v1/stages/{id}", self._get),
            Route("GET", "/v1/stages/{id}/summary", self._get_summary),
            Route("PATCH", "/v1/stages/{id}/user-metadata", self._setting_metadata(self._stage, "STAGE")),
            Route("PUT", "/v1/stages/{id}/status", self._release),
            Route("GET", "/v1/stages/{id}/history", self._history, part_b=True),
        )

    def _add(self, asked: Asked) -> Answer:
        asked.query(Query)
        body = asked.body(bodies.PlainStageBody if self._part_a_only else bodies.StageBody)
        return Answer(201, wire.stage_json(self._jobs.add_stage(self._job(asked), body, asked.trace())))

    def _list_of_job(self, asked: Asked) -> Answer:
        query = asked.query(queries.StagesOfJobQuery)
        return self._listed(asked, query, self._job(asked).stages)

    def _list(self, asked: Asked) -> Answer:
        query = asked.query(queries.StageQuery)
        found = [
            stage
            for stage in self._state.stages.values()
            if query.job_id in {None, stage.job.id}
            and query.stage_type in {None, stage.type}
            and query.stage_operation_status in {None, stage.status}
        ]
        return self._listed(asked, query, found)

    def _listed(self, asked: Asked, query: queries.StagesOfJobQuery, stages: Sequence[Stage]) -> Answer:
        found = [((stage.job.number, stage.order), stage) for stage in stages]
        return page_of(asked, query, found, lambda stage: self._with_tasks(stage, wanted=query.should_return_tasks))

    def _with_tasks(self, stage: Stage, *, wanted: bool) -> wire.Json:
        body = wire.stage_json(stage)
        return body | {"tasks": [self._task_json(task) for task in stage.tasks]} if wanted else body

    def _get(self, asked: Asked) -> Answer:
        query = asked.query(queries.OneStageQuery)
        stage = self._with_tasks(self._stage(asked), wanted=query.should_return_tasks)
        if query.should_return_progress:
            stage |= wire.stage_progress(self._stage(asked), self._state.now())
        return Answer(200, stage)

    def _get_summary(self, asked: Asked) -> Answer:
        asked.query(Query)
        return Answer(200, wire.summary_json(self._stage(asked)))

    def _release(self, asked: Asked) -> Answer:
        asked.query(Query)
        asked.body(bodies.StageStatusBody)
        self._jobs.release(self._stage(asked))
        return done("STAGE_MODIFIED_SUCCESSFULLY")

    def _history(self, asked: Asked) -> Answer:
        asked.query(Query)
        return Answer(200, wire.changes_json(self._stage(asked).changes))


class TaskEndpoints(Endpoints):
    """What is asked of tasks, apart from working on them."""

    def routes(self) -> Sequence[Route]:
        """All of them."""
        return (
            Route("GET", "/v1/stages/{id}/tasks", self._list_of_stage),
            Route("POST", "/v1/stages/{id}/tasks", self._add),
            Route("GET", "/v1/tasks", self._list),
            Route("GET", "/v1/tasks/{id}", self._get),
            Route("PATCH", "/v1/tasks/{id}/user-metadata", self._setting_metadata(self._task, "TASK")),
            Route("GET", "/v1/tasks/{id}/history", self._history, part_b=True),
            Route("GET", "/v1/tasks/{id}/attempts", self._attempts, part_b=True),
        )

    def _add(self, asked: Asked) -> Answer:
        asked.query(Query)
        body = asked.bodies(bodies.PlainTaskBody if self._part_a_only else bodies.TaskBody)
        tasks = self._jobs.add_tasks(self._stage(asked), body, asked.trace())
        if asked.prefers_minimal and not self._part_a_only:
            return Answer(201, {"created": len(tasks)}, MINIMAL)
        return Answer(201, [self._task_json(task) for task in tasks])

    def _list_of_stage(self, asked: Asked) -> Answer:
        query = asked.query(queries.Part)
        return self._listed(asked, query, self._stage(asked).tasks)

    def _list(self, asked: Asked) -> Answer:
        query = asked.query(queries.TaskQuery)
        found = [
            task
            for task in self._state.tasks.values()
            if query.stage_id in {None, task.stage.id}
            and query.stage_type in {None, task.stage.type}
            and query.status in {None, task.status}
            and _created_between(task, query.from_date, query.end_date)
        ]
        return self._listed(asked, query, found)

    def _listed(self, asked: Asked, query: queries.Part, tasks: Sequence[Task]) -> Answer:
        return page_of(asked, query, [((task.number, 0), task) for task in tasks], self._task_json)

    def _get(self, asked: Asked) -> Answer:
        asked.query(Query)
        return Answer(200, self._task_json(self._task(asked)))

    def _history(self, asked: Asked) -> Answer:
        asked.query(Query)
        return Answer(200, wire.changes_json(wire.changes_of_task(self._task(asked))))

    def _attempts(self, asked: Asked) -> Answer:
        asked.query(Query)
        return Answer(200, wire.attempts_json(self._task(asked)))


def _created_between(entity: Job | Task, first: datetime | None, last: datetime | None) -> bool:
    return (first is None or first <= entity.created) and (last is None or entity.created <= last)
