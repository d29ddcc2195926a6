-- Run once, possibly while managers are running. Every change of a status is a row of the history, so a row must cost
-- little: it has one index, and takes no lock of its job. The trigger of 0013 deletes the history of a deleted job.
ALTER TABLE history
    DROP CONSTRAINT history_job_id_fkey,
    DROP CONSTRAINT history_pkey,
    ADD CONSTRAINT history_pkey PRIMARY KEY USING INDEX history_by_job;
DROP INDEX history_of_job;
