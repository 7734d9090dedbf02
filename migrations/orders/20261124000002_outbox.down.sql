DROP TABLE outbox;
DROP TABLE instances;
