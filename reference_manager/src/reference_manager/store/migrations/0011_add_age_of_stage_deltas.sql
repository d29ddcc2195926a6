-- For the age of the oldest delta.
ALTER TABLE stage_deltas ADD COLUMN created_at timestamptz NOT NULL DEFAULT now();
