DROP TABLE message_copies;
ALTER TABLE quarantine DROP COLUMN message_ref;
