-- Up to when everything is announced. An older order-service beside this schema states nothing of its log: nothing
-- after its start is told then, until that log is done.

-- How far each log is settled in time: a row a second at most, only where that has moved. Inserted, not updated: the
-- newest is found at once, whoever holds an old snapshot. Retention leaves one row of each log.
CREATE TABLE log_progress (
    instance bigint NOT NULL,
    -- Every message of the log whose time is at or before it is published or failed, and no other can come.
    settled_until timestamptz NOT NULL,
    -- So is every message up to this place. Those behind it have a later time.
    settled_to bigint NOT NULL,
    CONSTRAINT log_progress_pkey PRIMARY KEY (instance, settled_until)
);

-- What was told, or was about to be: it never goes back. A row each time, of which retention leaves the last.
CREATE TABLE announced (
    announced_to timestamptz NOT NULL,
    told_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT announced_pkey PRIMARY KEY (announced_to, told_at)
);

-- Up to when every message of every log is published or failed. A log that has stated nothing yet has no message
-- from before its start.
CREATE FUNCTION announced_to() RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (
    SELECT min(coalesce(
        (SELECT p.settled_until FROM log_progress p WHERE p.instance = i.instance_id ORDER BY p.settled_until DESC LIMIT 1),
        i.started_at - interval '1 microsecond'))
    FROM instances i WHERE i.done_at IS NULL
);
