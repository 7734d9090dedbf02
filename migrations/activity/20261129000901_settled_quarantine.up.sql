-- The purge looks at what is settled in pages, and each page begins behind the one before, however many were settled at once.
-- Nobody waits behind this for longer.
SET LOCAL lock_timeout = '2s';
CREATE INDEX quarantine_settled ON quarantine (resolved_at, quarantine_id) WHERE state <> 'waiting';
DROP INDEX quarantine_resolved;
