-- Why a message is in quarantine is told by a code with underscores. What is there is renamed in a column beside the
-- words: a version of before goes on writing and reading the words, and looks for 'unknown type' when a type is
-- registered. A later migration may let the words go.
ALTER TABLE quarantine
    ADD COLUMN reason_code text NOT NULL GENERATED ALWAYS AS (replace(reason, ' ', '_')) STORED,
    -- SHA-256 of a value that is not kept, because the topic has too many in quarantine or the value is too large.
    ADD COLUMN value_sha256 bytea,
    -- The bytes that were counted in place of those that came: who gave them, and why, is who ended the waiting.
    ADD COLUMN corrected_value bytea,
    DROP CONSTRAINT quarantine_reason_known,
    ADD CONSTRAINT quarantine_reason_known CHECK (replace(reason, ' ', '_') IN (
        'no_value', 'not_json', 'bad_field', 'unknown_type', 'unknown_version', 'bad_date', 'too_old', 'not_storable',
        'conflicting_copy')),
    ADD CONSTRAINT quarantine_value_or_hash CHECK (value_sha256 IS NULL OR value IS NULL),
    ADD CONSTRAINT quarantine_corrected_is_counted CHECK (corrected_value IS NULL OR state = 'counted');

-- Lists, replays and discards go by one of these, the oldest first. Received is when the database's clock says, and
-- the ids are drawn by the clocks of the services.
CREATE INDEX quarantine_by_time ON quarantine (state, received_at, quarantine_id);
CREATE INDEX quarantine_by_reason ON quarantine (state, reason_code, received_at, quarantine_id);
CREATE INDEX quarantine_by_type ON quarantine (state, activity_type_code, received_at, quarantine_id);
CREATE INDEX quarantine_by_topic ON quarantine (state, topic, received_at, quarantine_id);

-- How many there are without their bytes is asked with each scrape.
CREATE INDEX quarantine_without_value ON quarantine (quarantine_id) WHERE state = 'waiting' AND value_sha256 IS NOT NULL;

-- What was corrected has no key under its own reference, or has none at all: its row keeps it from coming back.
CREATE INDEX quarantine_corrected ON quarantine (identity) WHERE corrected_value IS NOT NULL;

-- What is known of a reference is looked for by it.
CREATE INDEX quarantine_by_message ON quarantine (message_ref) WHERE message_ref IS NOT NULL;

-- How much a topic has in quarantine, bytes included, is measured while more comes.
CREATE INDEX quarantine_with_value ON quarantine (topic) WHERE value_sha256 IS NULL;
