DELETE FROM quarantine WHERE reason = 'conflicting copy';
ALTER TABLE quarantine DROP CONSTRAINT quarantine_reason_known, ADD CONSTRAINT quarantine_reason_known CHECK (reason IN (
    'no value', 'not json', 'bad field', 'unknown type', 'unknown version', 'bad date', 'too old', 'not storable'));

ALTER TABLE quarantine
    ADD COLUMN value_sha256 bytea NOT NULL GENERATED ALWAYS AS (sha256(coalesce(value, ''))) STORED,
    ADD CONSTRAINT quarantine_position UNIQUE (topic, partition, "offset", value_sha256);
DROP INDEX quarantine_identity;
ALTER TABLE quarantine DROP COLUMN identity;
CREATE INDEX quarantine_messages ON quarantine (message_ref) WHERE state <> 'counted';

-- Of the copies only the last places are known.
INSERT INTO quarantine (quarantine_id, topic, partition, "offset", key, value, ce_type, reason, detail,
    activity_type_code, message_ref, state, received_at, resolved_at, resolved_by, resolution)
SELECT gen_random_uuid(), copy.topic, copy.partition, copy.last_offset, key, value, ce_type, reason, detail,
    activity_type_code, message_ref, state, received_at, resolved_at, resolved_by, resolution
FROM quarantine_copies AS copy JOIN quarantine USING (quarantine_id)
ON CONFLICT DO NOTHING;

DROP TABLE quarantine_copies;
