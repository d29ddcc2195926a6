"""The endpoints of jobs, stages and tasks."""

from collections.abc import Sequence
from datetime import datetime

from pydantic_core import to_json

from jobnik_sdk.model.definitions import JobStatus
from jobnik_sdk.testing.fake import bodies, queries, wire
from jobnik_sdk.testing.fake.endpoints import Endpoints, Route, done
from jobnik_sdk.testing.fake.queries import Query
from jobnik_sdk.testing.fake.requests import MINIMAL, Answer, Request, history_page, page_of
from jobnik_sdk.testing.fake.state import Job, Stage, Task


class JobEndpoints(Endpoints):
    """The endpoints of jobs."""

    def routes(self) -> Sequence[Route]:
        """Return all routes."""
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

    def _create(self, request: Request) -> Answer:
        request.query(Query)
        body = request.body(bodies.PlainJobBody if self._part_a_only else bodies.JobBody)
        with_stages = "stages" in body.model_fields_set

        def create() -> tuple[Job, Answer | Job]:
            job, new = self._jobs.create(body, request.trace())
            return job, Answer(201, wire.job_json(job, stages=with_stages)) if new else job

        answer = self._once(request, lambda: ["job", body.identity()], create)
        return answer if isinstance(answer, Answer) else Answer(200, wire.job_json(answer, stages=with_stages))

    def _list(self, request: Request) -> Answer:
        query = request.query(queries.JobQuery)
        found = [
            ((job.number, 0), job)
            for job in self._state.jobs.values()
            if query.job_name in {None, job.name}
            and query.priority in {None, job.priority}
            and (query.status is None or job.status in query.status)
            and _has_metadata(job, query.metadata)
            and _created_between(job, query.from_date, query.end_date)
        ]
        return page_of(request, query, found, lambda job: wire.job_json(job, stages=query.should_return_stages))

    def _get(self, request: Request) -> Answer:
        query = request.query(queries.OneJobQuery)
        job = wire.job_json(self._job(request), stages=query.should_return_stages)
        if query.should_return_progress:
            job |= wire.job_progress(self._job(request), self._state.now)
        return Answer(200, job)

    def _delete(self, request: Request) -> Answer:
        request.query(Query)
        self._jobs.delete(self._job(request))
        return done("JOB_DELETED_SUCCESSFULLY")

    def _set_priority(self, request: Request) -> Answer:
        request.query(Query)
        body = request.body(bodies.PriorityBody)
        if self._jobs.set_priority(self._job(request), body.priority):
            return done("JOB_MODIFIED_SUCCESSFULLY")
        original = "PRIORITY_CANNOT_BE_UPDATED_TO_SAME_VALUE"
        return Answer(204, headers={"Reason": original if self._part_a_only else "The job already has this priority"})

    def _set_status(self, request: Request) -> Answer:
        request.query(Query)
        body = request.body(bodies.JobStatusBody)
        self._jobs.set_status(self._job(request), JobStatus(body.status))
        return done("JOB_MODIFIED_SUCCESSFULLY")

    def _history(self, request: Request) -> Answer:
        return history_page(request, wire.changes_json(self._job(request).changes))


class StageEndpoints(Endpoints):
    """The endpoints of stages."""

    def routes(self) -> Sequence[Route]:
        """Return all routes."""
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

    def _add(self, request: Request) -> Answer:
        request.query(Query)
        body = request.body(bodies.PlainStageBody if self._part_a_only else bodies.StageBody)

        def create() -> tuple[Job, wire.Json]:
            stage = self._jobs.add_stage(self._job(request), body, request.trace())
            return stage.job, wire.stage_json(stage)

        return Answer(201, self._once(request, lambda: ["stage", request.id(), body.identity()], create))

    def _list_of_job(self, request: Request) -> Answer:
        query = request.query(queries.StagesOfJobQuery)
        return self._listed(request, query, self._job(request).stages)

    def _list(self, request: Request) -> Answer:
        query = request.query(queries.StageQuery)
        found = [
            stage
            for stage in self._state.stages.values()
            if query.job_id in {None, stage.job.id}
            and query.stage_type in {None, stage.type}
            and (query.stage_operation_status is None or stage.status in query.stage_operation_status)
            and _has_metadata(stage, query.metadata)
        ]
        return self._listed(request, query, found)

    def _listed(self, request: Request, query: queries.StagesOfJobQuery, stages: Sequence[Stage]) -> Answer:
        found = [((stage.job.number, stage.order), stage) for stage in stages]
        return page_of(request, query, found, lambda stage: self._with_tasks(stage, wanted=query.should_return_tasks))

    def _with_tasks(self, stage: Stage, *, wanted: bool) -> wire.Json:
        body = wire.stage_json(stage)
        return body | {"tasks": [wire.task_json(task) for task in stage.tasks]} if wanted else body

    def _get(self, request: Request) -> Answer:
        query = request.query(queries.OneStageQuery)
        stage = self._with_tasks(self._stage(request), wanted=query.should_return_tasks)
        if query.should_return_progress:
            stage |= wire.stage_progress(self._stage(request), self._state.now)
        return Answer(200, stage)

    def _get_summary(self, request: Request) -> Answer:
        request.query(Query)
        return Answer(200, wire.summary_json(self._stage(request)))

    def _release(self, request: Request) -> Answer:
        request.query(Query)
        request.body(bodies.StageStatusBody)
        self._jobs.release(self._stage(request))
        return done("STAGE_MODIFIED_SUCCESSFULLY")

    def _history(self, request: Request) -> Answer:
        return history_page(request, wire.changes_json(self._stage(request).changes))


class TaskEndpoints(Endpoints):
    """The endpoints of tasks, except for claims and reports under leases."""

    def routes(self) -> Sequence[Route]:
        """Return all routes."""
        return (
            Route("GET", "/v1/stages/{id}/tasks", self._list_of_stage),
            Route("POST", "/v1/stages/{id}/tasks", self._add),
            Route("GET", "/v1/tasks", self._list),
            Route("GET", "/v1/tasks/{id}", self._get),
            Route("PATCH", "/v1/tasks/{id}/user-metadata", self._setting_metadata(self._task, "TASK")),
            Route("GET", "/v1/tasks/{id}/history", self._history, part_b=True),
            Route("GET", "/v1/tasks/{id}/attempts", self._attempts, part_b=True),
        )

    def _add(self, request: Request) -> Answer:
        request.query(Query)
        body = request.bodies(bodies.PlainTaskBody if self._part_a_only else bodies.TaskBody)

        def create() -> tuple[Job, Sequence[wire.Json]]:
            stage = self._stage(request)
            return stage.job, [wire.task_json(task) for task in self._jobs.add_tasks(stage, body, request.trace())]

        def identity() -> object:
            return ["tasks", request.id(), [task.identity() for task in body]]

        tasks = self._once(request, identity, create, kind="stage")
        if request.prefers_minimal and not self._part_a_only:
            return Answer(201, {"created": len(tasks)}, MINIMAL)
        return Answer(201, tasks)

    def _list_of_stage(self, request: Request) -> Answer:
        query = request.query(queries.NumberedQuery)
        return self._listed(request, query, self._stage(request).tasks)

    def _list(self, request: Request) -> Answer:
        query = request.query(queries.TaskQuery)
        found = [
            task
            for task in self._state.tasks.values()
            if query.stage_id in {None, task.stage.id}
            and query.stage_type in {None, task.stage.type}
            and (query.status is None or task.status in query.status)
            and _has_metadata(task, query.metadata)
            and _created_between(task, query.from_date, query.end_date)
        ]
        return self._listed(request, query, found)

    def _listed(self, request: Request, query: queries.PageQuery, tasks: Sequence[Task]) -> Answer:
        return page_of(request, query, [((task.number, 0), task) for task in tasks], wire.task_json)

    def _get(self, request: Request) -> Answer:
        request.query(Query)
        return Answer(200, wire.task_json(self._task(request)))

    def _history(self, request: Request) -> Answer:
        return history_page(request, wire.changes_json(wire.changes_of_task(self._task(request))))

    def _attempts(self, request: Request) -> Answer:
        return history_page(request, wire.attempts_json(self._task(request)))


def _has_metadata(entity: Job | Stage | Task, conditions: queries.Conditions) -> bool:
    """Return whether the metadata has these values, given as text: strings, numbers and booleans."""
    return all(_text(entity.metadata.get(name)) == content for name, content in conditions)


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    return to_json(value).decode() if isinstance(value, int | float) else None


def _created_between(entity: Job | Task, first: datetime | None, last: datetime | None) -> bool:
    return (first is None or first <= entity.created) and (last is None or entity.created <= last)
