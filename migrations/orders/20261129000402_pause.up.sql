-- That announcing rests, on all instances: at most one row. It is over when the row is gone, or at `until` by the clock of
-- the database. What was paused before is in the audit.
CREATE TABLE pause (
    is_it boolean NOT NULL DEFAULT true,
    reason text NOT NULL,
    paused_by text NOT NULL,
    paused_at timestamptz NOT NULL DEFAULT now(),
    until timestamptz,
    CONSTRAINT pause_pkey PRIMARY KEY (is_it),
    CONSTRAINT pause_is_one CHECK (is_it)
);
