ALTER TABLE rejected_messages DROP COLUMN key, DROP COLUMN fields;
ALTER TABLE outbox DROP COLUMN key, DROP COLUMN fields;
