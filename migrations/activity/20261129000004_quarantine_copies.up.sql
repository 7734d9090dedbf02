-- A message that somebody sends again and again is one row, however often it comes. It had a row for each
-- place, and a batch with a copy locked them all: 300,000 copies stopped every partition.

-- What makes two messages the same, as `quarantine/known.rs` has it: of one that could be read its reference and
-- its bytes, of any other everything that was kept of it.
ALTER TABLE quarantine ADD COLUMN identity bytea;

UPDATE quarantine SET identity = sha256(CASE
    WHEN message_ref IS NOT NULL THEN '\x02'::bytea || uuid_send(message_ref) || coalesce(value, '')
    ELSE coalesce('\x01'::bytea || int8send(octet_length(key)) || key, '\x00')
        || coalesce('\x01'::bytea || int8send(octet_length(ce_type)) || ce_type, '\x00')
        || coalesce('\x01'::bytea || int8send(octet_length(value)) || value, '\x00')
END);

ALTER TABLE quarantine ALTER COLUMN identity SET NOT NULL;

-- Where else a message in quarantine stands, beside its first place: the last offset of each partition, and how
-- many copies there are. What is delivered again stands before the last offset, and is not added again.
CREATE TABLE quarantine_copies (
    quarantine_id uuid NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    last_offset bigint NOT NULL,
    messages bigint NOT NULL,
    CONSTRAINT quarantine_copies_pkey PRIMARY KEY (quarantine_id, topic, partition),
    CONSTRAINT quarantine_copies_messages_positive CHECK (messages > 0)
);

CREATE TEMPORARY TABLE merged ON COMMIT DROP AS
SELECT quarantine_id, first_value(quarantine_id) OVER (
    -- Of what cannot be read each was decided about alone: where one still waits, all do.
    PARTITION BY identity ORDER BY state = 'waiting' DESC, quarantine_id
) AS into_id
FROM quarantine WHERE state <> 'counted';

INSERT INTO quarantine_copies (quarantine_id, topic, partition, last_offset, messages)
SELECT into_id, topic, partition, max("offset"), count(*)
FROM merged JOIN quarantine USING (quarantine_id)
WHERE quarantine_id <> into_id
GROUP BY into_id, topic, partition;

DELETE FROM quarantine USING merged
WHERE quarantine.quarantine_id = merged.quarantine_id AND merged.quarantine_id <> merged.into_id;

-- What was counted has a key, which keeps it from coming back.
CREATE UNIQUE INDEX quarantine_identity ON quarantine (identity) WHERE state <> 'counted';

-- It was looked for by reference and hash, and by place.
DROP INDEX quarantine_messages;
ALTER TABLE quarantine DROP CONSTRAINT quarantine_position, DROP COLUMN value_sha256;

-- Another type or time under a reference that was counted.
ALTER TABLE quarantine DROP CONSTRAINT quarantine_reason_known, ADD CONSTRAINT quarantine_reason_known CHECK (reason IN (
    'no value', 'not json', 'bad field', 'unknown type', 'unknown version', 'bad date', 'too old', 'not storable',
    'conflicting copy'));
