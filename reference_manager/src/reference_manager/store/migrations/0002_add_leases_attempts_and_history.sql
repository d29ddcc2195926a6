-- Run once, after 0001. Adds leases, attempts, history and workers, and moves the queue from the tasks to a small
-- table.

DROP FUNCTION IF EXISTS claim_tasks(text, integer);
DROP FUNCTION IF EXISTS settle_tasks(uuid[], task_status[]);
DROP FUNCTION IF EXISTS follow_ended_stages(uuid[]);
DROP FUNCTION IF EXISTS stage_wire(stages, boolean);
DROP FUNCTION IF EXISTS task_wire(tasks);

-- The outcome of an attempt. The manager sets EXPIRED and TIMED_OUT; workers report the others.
CREATE TYPE attempt_outcome AS ENUM ('COMPLETED', 'FAILED', 'RELEASED', 'SNOOZED', 'EXPIRED', 'TIMED_OUT');

-- Lease ids increase across all tasks. A crash may leave gaps, but no id is used twice.
CREATE SEQUENCE lease_ids;

-- The queue of a stage: its claimable tasks, by age. Claims delete rows here, so that no column that they change is in
-- an index of tasks: there, a claim and a report are HOT updates, whatever the number of indexes.
CREATE TABLE waiting_tasks (
    stage_id uuid NOT NULL,
    seq bigint NOT NULL,
    task_id uuid NOT NULL,
    -- When the task became claimable, from which a claim measures how long it waited.
    ready_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stage_id, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);

-- Tasks that cannot be claimed before they are due.
CREATE TABLE delayed_tasks (
    task_id uuid PRIMARY KEY,
    stage_id uuid NOT NULL,
    seq bigint NOT NULL,
    due timestamptz NOT NULL
);
CREATE INDEX delayed_tasks_by_due ON delayed_tasks (due);
CREATE INDEX delayed_tasks_of_stage ON delayed_tasks (stage_id);

-- Leases: one row for each task IN_PROGRESS. Ending an attempt deletes its row, so that only one session can end it.
CREATE TABLE leases (
    id bigint PRIMARY KEY,
    task_id uuid NOT NULL,
    stage_id uuid NOT NULL,
    -- Null for a client without leases. Its leases last for the stale time.
    worker_id text,
    length interval NOT NULL,
    expires_at timestamptz NOT NULL,
    -- When the time limit of the attempt passes, even if heartbeats renew the lease; null: there is no limit.
    deadline timestamptz,
    CHECK (expires_at <= deadline)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
CREATE INDEX leases_by_expiry ON leases (expires_at);

-- Attempts after which the task continued. The current or last attempt is stored in the task itself.
CREATE TABLE attempts (
    lease_id bigint PRIMARY KEY,
    task_id uuid NOT NULL REFERENCES tasks ON DELETE CASCADE,
    worker_id text,
    outcome attempt_outcome NOT NULL,
    -- The status of the task before the claim and after the attempt.
    source task_status NOT NULL,
    target task_status NOT NULL,
    error json,
    start_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL
);
CREATE INDEX attempts_of_task ON attempts (task_id, lease_id);

-- Every status change of jobs and stages, written by triggers. The changes of tasks follow from their attempts.
CREATE TABLE history (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    job_id uuid NOT NULL REFERENCES jobs ON DELETE CASCADE,
    stage_id uuid, -- null for a change of the job itself
    source text, -- null for the creation
    target text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX history_of_job ON history (job_id, id);

-- Every status change adds a row. Its author and reason follow from the edge of the state machine:
-- domain/transitions.py.
CREATE FUNCTION record_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO history (job_id, source, target) VALUES (
        NEW.id, CASE WHEN TG_OP = 'UPDATE' THEN OLD.status END, NEW.status
    );
    RETURN NULL;
END
$$;

CREATE FUNCTION record_stage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO history (job_id, stage_id, source, target) VALUES (
        NEW.job_id, NEW.id, CASE WHEN TG_OP = 'UPDATE' THEN OLD.status END, NEW.status
    );
    RETURN NULL;
END
$$;

CREATE TRIGGER created AFTER INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION record_job();
CREATE TRIGGER moved AFTER UPDATE ON jobs FOR EACH ROW
    WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION record_job();
CREATE TRIGGER created AFTER INSERT ON stages FOR EACH ROW EXECUTE FUNCTION record_stage();
CREATE TRIGGER moved AFTER UPDATE ON stages FOR EACH ROW
    WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION record_stage();

-- The numbers of jobs, stages and tasks, for metrics: each is the sum of all rows with its key. Triggers add a row for
-- each change, so that writers do not wait for one another, and a maintenance task sums the rows up (fold_totals).
-- Deltas of claims and reports are not included until they are folded into the counts of the stage.
CREATE TABLE job_totals (
    status job_status NOT NULL,
    jobs bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

CREATE TABLE stage_totals (
    type text NOT NULL,
    priority job_priority NOT NULL,
    status stage_status NOT NULL,
    stages bigint NOT NULL,
    -- The tasks of these stages.
    pending bigint NOT NULL,
    in_progress bigint NOT NULL,
    retried bigint NOT NULL,
    completed bigint NOT NULL,
    failed bigint NOT NULL,
    aborted bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

INSERT INTO job_totals SELECT status, count(*) FROM jobs GROUP BY status;
INSERT INTO stage_totals
SELECT type, priority, status, count(*), sum(pending), sum(in_progress), sum(retried), sum(completed), sum(failed),
    sum(aborted)
FROM stages GROUP BY type, priority, status;

CREATE FUNCTION count_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO job_totals VALUES (OLD.status, -1);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO job_totals VALUES (NEW.status, 1);
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION count_stage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO stage_totals VALUES (
            OLD.type, OLD.priority, OLD.status, -1,
            -OLD.pending, -OLD.in_progress, -OLD.retried, -OLD.completed, -OLD.failed, -OLD.aborted
        );
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO stage_totals VALUES (
            NEW.type, NEW.priority, NEW.status, 1,
            NEW.pending, NEW.in_progress, NEW.retried, NEW.completed, NEW.failed, NEW.aborted
        );
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER counted AFTER INSERT OR DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION count_job();
CREATE TRIGGER counted_anew AFTER UPDATE ON jobs FOR EACH ROW
    WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION count_job();
CREATE TRIGGER counted AFTER INSERT OR DELETE ON stages FOR EACH ROW EXECUTE FUNCTION count_stage();
CREATE TRIGGER counted_anew AFTER UPDATE ON stages FOR EACH ROW
    WHEN (
        (OLD.priority, OLD.status, OLD.pending, OLD.in_progress, OLD.retried, OLD.completed, OLD.failed, OLD.aborted)
        IS DISTINCT FROM
        (NEW.priority, NEW.status, NEW.pending, NEW.in_progress, NEW.retried, NEW.completed, NEW.failed, NEW.aborted)
    ) EXECUTE FUNCTION count_stage();

-- Workers that send heartbeats.
CREATE TABLE workers (
    id text PRIMARY KEY,
    stage_types text[] NOT NULL,
    host text,
    version text,
    draining boolean NOT NULL,
    drain_wanted boolean NOT NULL DEFAULT false,
    running integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- Aborted stages whose tasks' rows are not all updated yet. Readers take the status of such tasks from the stage.
CREATE TABLE aborted_stages (
    stage_id uuid PRIMARY KEY REFERENCES stages ON DELETE CASCADE,
    swept_to bigint NOT NULL DEFAULT 0 -- the seq up to which the rows are updated
);

ALTER TABLE stages
    -- No waiting task has a smaller seq. Claims begin here, behind the dead index entries of claimed tasks.
    ADD COLUMN head bigint NOT NULL DEFAULT 0,
    -- When the tasks became claimable, if they are. An older task has not been waiting for workers before that.
    ADD COLUMN opened_at timestamptz NOT NULL DEFAULT now();

-- For the depth of a stage type, which autoscalers read.
CREATE INDEX stages_at_work ON stages (type) WHERE status IN ('PENDING', 'IN_PROGRESS');

ALTER TABLE stage_deltas
    ADD COLUMN completed bigint NOT NULL DEFAULT 0,
    DROP CONSTRAINT stage_deltas_check,
    ADD CONSTRAINT deltas_move_tasks_and_make_none CHECK (pending + retried + in_progress + completed = 0);

INSERT INTO waiting_tasks SELECT stage_id, waiting, id, updated_at FROM tasks WHERE waiting IS NOT NULL;

ALTER TABLE tasks
    DROP COLUMN waiting,
    DROP CONSTRAINT attempts_stay_within_their_limit,
    DROP CONSTRAINT waiting_tasks_have_an_attempt_left,
    DROP CONSTRAINT retried_tasks_have_failed_before,
    DROP CONSTRAINT started_tasks_have_a_start_time,
    DROP CONSTRAINT finished_tasks_have_an_end_time,
    -- The current or last attempt: its lease, its worker and its outcome.
    ADD COLUMN lease_id bigint,
    ADD COLUMN worker_id text,
    ADD COLUMN outcome attempt_outcome,
    ADD COLUMN error json,
    ADD COLUMN result json,
    ADD COLUMN progress json,
    ADD COLUMN timeout interval CHECK (timeout > interval '0');

UPDATE tasks SET lease_id = nextval('lease_ids') WHERE status = 'IN_PROGRESS';
UPDATE tasks SET outcome = status::text::attempt_outcome WHERE status IN ('COMPLETED', 'FAILED');
INSERT INTO leases (id, task_id, stage_id, length, expires_at)
SELECT lease_id, id, stage_id, interval '30 minutes', now() + interval '30 minutes'
FROM tasks WHERE status = 'IN_PROGRESS';

-- One check for all statuses, because PostgreSQL loads each check again in every statement that writes a task.
ALTER TABLE tasks ADD CONSTRAINT statuses_mean_what_they_say CHECK (
    attempts BETWEEN 0 AND max_attempts
    AND CASE status
        WHEN 'PENDING' THEN attempts = 0 AND end_time IS NULL
        WHEN 'RETRIED' THEN attempts BETWEEN 1 AND max_attempts - 1 AND start_time IS NOT NULL AND end_time IS NULL
        WHEN 'IN_PROGRESS'
            THEN attempts < max_attempts AND start_time IS NOT NULL AND end_time IS NULL AND lease_id IS NOT NULL
        WHEN 'COMPLETED' THEN start_time IS NOT NULL AND end_time IS NOT NULL AND outcome = 'COMPLETED'
        WHEN 'FAILED' THEN attempts > 0 AND start_time IS NOT NULL AND end_time IS NOT NULL
        WHEN 'ABORTED' THEN end_time IS NOT NULL
        ELSE false
    END
);

INSERT INTO history (job_id, source, target, changed_at) SELECT id, NULL, 'PENDING', created_at FROM jobs;
INSERT INTO history (job_id, source, target, changed_at)
SELECT id, 'PENDING', status, updated_at FROM jobs WHERE status <> 'PENDING';
INSERT INTO history (job_id, stage_id, source, target, changed_at)
SELECT job_id, id, NULL, status, updated_at FROM stages;
