"""The three state machines of the protocol. Tests compare the SQL, the API and the documentation with these tables."""

from reference_manager.domain.state_machine import Consequence, Driver, Edge, Machine
from reference_manager.domain.states import JobStatus as Job
from reference_manager.domain.states import StageStatus as Stage
from reference_manager.domain.states import TaskStatus as Task

CLIENT, MANAGER = Driver.CLIENT, Driver.MANAGER

RESERVED = "permitted by the protocol, but not used in version 1"
"""The cause of edges that other managers may take and this manager never takes."""

# A job that is PAUSED, or PENDING again after a pause, can still have tasks in progress. Their reports end the job like
# any others, so COMPLETED and FAILED are reachable from these statuses too.
_ACTIVE = (Job.PENDING, Job.IN_PROGRESS, Job.PAUSED)

JOB = Machine(
    "job",
    (
        Edge(Job.CREATED, Job.PENDING, MANAGER, "it is created"),
        Edge(Job.PENDING, Job.IN_PROGRESS, MANAGER, "one of its tasks is claimed"),
        *(Edge(source, Job.COMPLETED, MANAGER, "all its stages are completed") for source in _ACTIVE),
        *(
            Edge(source, Job.FAILED, MANAGER, "one of its stages failed", (Consequence.CLOSE_QUEUES,))
            for source in _ACTIVE
        ),
        *(
            Edge(source, Job.PAUSED, CLIENT, "pause", (Consequence.CLOSE_QUEUES,))
            for source in (Job.PENDING, Job.IN_PROGRESS)
        ),
        Edge(Job.PAUSED, Job.PENDING, CLIENT, "resume", (Consequence.OPEN_QUEUES,)),
        *(
            Edge(
                source,
                Job.ABORTED,
                CLIENT,
                "abort",
                (Consequence.CLOSE_QUEUES, Consequence.ABORT_TASKS, Consequence.ABORT_STAGES),
            )
            for source in (Job.CREATED, *_ACTIVE)
        ),
    ),
)

STAGE = Machine(
    "stage",
    (
        Edge(Stage.CREATED, Stage.PENDING, MANAGER, "it is the first, or the stage before it completed"),
        Edge(Stage.CREATED, Stage.WAITING, MANAGER, "it is created with startAsWaiting"),
        Edge(Stage.WAITING, Stage.PENDING, CLIENT, "release, once the stage before it is completed"),
        Edge(Stage.PENDING, Stage.IN_PROGRESS, MANAGER, "its first task is claimed", (Consequence.START_JOB,)),
        Edge(
            Stage.IN_PROGRESS,
            Stage.COMPLETED,
            MANAGER,
            "all its tasks are completed",
            (Consequence.OPEN_NEXT_STAGE, Consequence.COMPLETE_JOB),
        ),
        Edge(Stage.IN_PROGRESS, Stage.FAILED, MANAGER, "a task failed permanently", (Consequence.FAIL_JOB,)),
        *(Edge(source, Stage.WAITING, MANAGER, RESERVED) for source in (Stage.PENDING, Stage.IN_PROGRESS)),
        *(
            Edge(source, Stage.ABORTED, MANAGER, "its job is aborted", (Consequence.ABORT_TASKS,))
            for source in (Stage.CREATED, Stage.WAITING, Stage.PENDING, Stage.IN_PROGRESS)
        ),
    ),
)

TASK = Machine(
    "task",
    (
        Edge(Task.CREATED, Task.PENDING, MANAGER, "it is created"),
        *(
            Edge(source, Task.IN_PROGRESS, MANAGER, "claimed", (Consequence.START_STAGE, Consequence.START_JOB))
            for source in (Task.PENDING, Task.RETRIED)
        ),
        Edge(Task.IN_PROGRESS, Task.COMPLETED, CLIENT, "its worker reports success", (Consequence.COMPLETE_STAGE,)),
        Edge(Task.IN_PROGRESS, Task.PENDING, MANAGER, "it is released or snoozed before any attempt has failed"),
        Edge(
            Task.IN_PROGRESS,
            Task.RETRIED,
            MANAGER,
            "its attempt failed and another is left, or a retry is released or snoozed",
        ),
        Edge(
            Task.IN_PROGRESS,
            Task.FAILED,
            CLIENT,
            "its last attempt failed",
            (Consequence.FAIL_STAGE,),
        ),
        *(
            Edge(source, Task.ABORTED, MANAGER, "its job is aborted")
            for source in (Task.CREATED, Task.PENDING, Task.RETRIED, Task.IN_PROGRESS)
        ),
    ),
)

MACHINES = (JOB, STAGE, TASK)
