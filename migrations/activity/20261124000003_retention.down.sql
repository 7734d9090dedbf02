DROP INDEX quarantine_resolved;
DROP INDEX processed_messages_oldest;
DROP TABLE key_horizon;
