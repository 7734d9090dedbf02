CREATE INDEX quarantine_resolved ON quarantine (resolved_at) WHERE state <> 'waiting';
DROP INDEX quarantine_settled;
