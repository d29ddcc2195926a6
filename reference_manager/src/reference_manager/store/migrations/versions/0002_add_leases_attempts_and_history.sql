-- Run once, after 0001. Leases, attempts, history and workers; the queue moves out of the tasks into a slim table.

DROP FUNCTION IF EXISTS claim_tasks(text, integer);
DROP FUNCTION IF EXISTS settle_tasks(uuid[], task_status[]);
DROP FUNCTION IF EXISTS follow_ended_stages(uuid[]);
DROP FUNCTION IF EXISTS stage_wire(stages, boolean);
DROP FUNCTION IF EXISTS task_wire(tasks);

-- What an attempt ended with. EXPIRED and TIMED_OUT are the manager's, the others a worker's word.
CREATE TYPE attempt_outcome AS ENUM ('COMPLETED', 'FAILED', 'RELEASED', 'SNOOZED', 'EXPIRED', 'TIMED_OUT');

-- Numbers of leases only grow, over all tasks; a crash may skip some and repeats none.
CREATE SEQUENCE lease_ids;

-- The queue of a stage: its tasks that may be claimed, by age. Claims delete here, so that nothing of what they change
-- stands in an index of tasks: a claim and a report of a task are HOT updates there, whatever the number of its indexes.
CREATE TABLE waiting_tasks (
    stage_id uuid NOT NULL,
    seq bigint NOT NULL,
    task_id uuid NOT NULL,
    -- Since when it waits here: what a claim measures its wait from.
    ready_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stage_id, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);

-- Tasks that wait for a moment before they may be claimed.
CREATE TABLE delayed_tasks (
    task_id uuid PRIMARY KEY,
    stage_id uuid NOT NULL,
    seq bigint NOT NULL,
    due timestamptz NOT NULL
);
CREATE INDEX delayed_tasks_by_due ON delayed_tasks (due);
CREATE INDEX delayed_tasks_of_stage ON delayed_tasks (stage_id);

-- Who works on what, one row for each task IN_PROGRESS. Whoever ends an attempt deletes its row: nobody else can.
CREATE TABLE leases (
    id bigint PRIMARY KEY,
    task_id uuid NOT NULL,
    stage_id uuid NOT NULL,
    -- Null for a client that claims without a lease; it has the stale time instead.
    worker_id text,
    length interval NOT NULL,
    expires_at timestamptz NOT NULL,
    -- When the attempt's time is up, whatever its worker's heartbeat says; null: never.
    deadline timestamptz,
    CHECK (expires_at <= deadline)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
CREATE INDEX leases_by_expiry ON leases (expires_at);

-- Attempts that ended while their task went on. The one that runs, or was the last, stands on the task itself.
CREATE TABLE attempts (
    lease_id bigint PRIMARY KEY,
    task_id uuid NOT NULL REFERENCES tasks ON DELETE CASCADE,
    worker_id text,
    outcome attempt_outcome NOT NULL,
    -- The status before the claim, and after the attempt.
    source task_status NOT NULL,
    target task_status NOT NULL,
    error json,
    start_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL
);
CREATE INDEX attempts_of_task ON attempts (task_id, lease_id);

-- Every change of a job's or a stage's status, written by triggers. Tasks have theirs in their attempts.
CREATE TABLE history (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    job_id uuid NOT NULL REFERENCES jobs ON DELETE CASCADE,
    stage_id uuid, -- null: the change is the job's
    source text, -- null: it was created
    target text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX history_of_job ON history (job_id, id);

-- Every change of status writes its row, whoever makes it. Who and why follow from the edge: domain/transitions.py.
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

-- How many jobs, stages and tasks there are, for metrics: each figure is the sum of all rows of its key. Triggers add a row
-- for each change, so that nobody waits for anybody; a duty sums the rows up (fold_totals). What claims and reports have
-- moved is not in here before it is folded into the stage's counts.
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

-- Stages that were aborted and whose tasks' rows do not say so yet; whoever reads them knows by the stage.
CREATE TABLE aborted_stages (
    stage_id uuid PRIMARY KEY REFERENCES stages ON DELETE CASCADE,
    swept_to bigint NOT NULL DEFAULT 0 -- the seq up to which the tasks' rows say it
);

ALTER TABLE stages
    -- No task that waits has a smaller seq: where claims begin to look, behind the dead entries of what has been claimed.
    ADD COLUMN head bigint NOT NULL DEFAULT 0,
    -- Since when its tasks may be claimed, if they may: a task that was there before does not wait for workers until then.
    ADD COLUMN opened_at timestamptz NOT NULL DEFAULT now();

-- How deep the queue of a stage type is, for autoscalers.
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
    -- The attempt that runs or was the last: its lease, its worker, how it ended.
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
SELECT lease_id, id, stage_id, interval '30 minutes', now() + interval '30 minutes' FROM tasks WHERE status = 'IN_PROGRESS';

-- One check for all, since PostgreSQL reads each anew in every statement that writes a task.
ALTER TABLE tasks ADD CONSTRAINT statuses_mean_what_they_say CHECK (
    attempts BETWEEN 0 AND max_attempts
    AND CASE status
        WHEN 'PENDING' THEN attempts = 0 AND end_time IS NULL
        WHEN 'RETRIED' THEN attempts BETWEEN 1 AND max_attempts - 1 AND start_time IS NOT NULL AND end_time IS NULL
        WHEN 'IN_PROGRESS' THEN attempts < max_attempts AND start_time IS NOT NULL AND end_time IS NULL AND lease_id IS NOT NULL
        WHEN 'COMPLETED' THEN start_time IS NOT NULL AND end_time IS NOT NULL AND outcome = 'COMPLETED'
        WHEN 'FAILED' THEN attempts > 0 AND start_time IS NOT NULL AND end_time IS NOT NULL
        WHEN 'ABORTED' THEN end_time IS NOT NULL
        ELSE false
    END
);

INSERT INTO history (job_id, source, target, changed_at) SELECT id, NULL, 'PENDING', created_at FROM jobs;
INSERT INTO history (job_id, source, target, changed_at)
SELECT id, 'PENDING', status, updated_at FROM jobs WHERE status <> 'PENDING';
INSERT INTO history (job_id, stage_id, source, target, changed_at) SELECT job_id, id, NULL, status, updated_at FROM stages;
