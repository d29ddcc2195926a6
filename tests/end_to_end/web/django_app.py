"""A Django application that creates jobs."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false
# Django has no annotations.

import os
from uuid import UUID

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from jobnik_sdk import NewStage, SyncProducer

from tests.end_to_end.web.definitions import Text, counts, essay

settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="none", ALLOWED_HOSTS=["127.0.0.1"])  # noqa: S106 no secret
producer = SyncProducer(os.environ["JOBNIK_BASE_URL"])
next(producer.list_jobs(essay), None)  # with gunicorn's --preload, the connection of this call is open during the fork


def create_essay(request: HttpRequest) -> JsonResponse:
    """Create a job."""
    job = producer.create_job(essay, stages=[NewStage(counts, [Text(text=request.body.decode())])])
    return JsonResponse({"id": str(job.id), "process": os.getpid()})


def read_essay(_request: HttpRequest, job_id: UUID) -> JsonResponse:
    """Return the results of a job."""
    stages = producer.list_stages(job_id, counts)
    tasks = [task for stage in stages for task in producer.list_tasks(stage)]
    return JsonResponse({"words": [task.result and task.result.words for task in tasks]})


urlpatterns = [path("essays", create_essay), path("essays/<uuid:job_id>", read_essay)]
app = get_wsgi_application()
