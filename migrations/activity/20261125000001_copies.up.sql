-- A message that is sent again has the same bytes at another offset: a copy.

-- The reference of a message that could be read: its copies are found by it, and share its lot.
ALTER TABLE quarantine ADD COLUMN message_ref uuid;

UPDATE quarantine
SET message_ref = substring(
    convert_from(value, 'UTF8')
    FROM '"messageRef"\s*:\s*"([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})"')::uuid
-- Only what was read, so that it is UTF-8. A wrong reference would do no harm: the bytes are compared.
WHERE state <> 'counted' AND reason IN ('unknown type', 'bad date', 'too old');

-- A batch looks for what it brings that is in quarantine already. What was counted has a key.
CREATE INDEX quarantine_messages ON quarantine (message_ref) WHERE state <> 'counted';

-- Where a counted message stands beside the place in its key: the last offset of each partition.
-- While any of them can be read the key is needed.
CREATE TABLE message_copies (
    message_ref uuid NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    CONSTRAINT message_copies_pkey PRIMARY KEY (message_ref, topic, partition)
);
