DROP TABLE outbox;
DROP TABLE instances;
DROP SEQUENCE instance_id;
