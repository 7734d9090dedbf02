-- A purged key cannot tell any more that its message was counted. What the newest activity among
-- the purged keys tells instead: a message up to then whose key is new may have been counted before.
CREATE TABLE key_horizon (
    only_row boolean NOT NULL DEFAULT true,
    newest_purged timestamptz,
    -- Grows with each purge, so that a transaction sees at its end whether a key may have gone meanwhile.
    purges bigint NOT NULL DEFAULT 0,
    CONSTRAINT key_horizon_pkey PRIMARY KEY (only_row),
    CONSTRAINT key_horizon_one_row CHECK (only_row)
);

INSERT INTO key_horizon DEFAULT VALUES;

-- Where the oldest keys are: the message's own id does not tell, for other services may use UUIDs of
-- any kind. It grows at its right end only, and the keys of a transaction share one value, of which
-- B-tree keeps one copy: some 7 bytes a key. BRIN would be smaller still, but purged rows leave room
-- that new ones are written to, and then every range of pages holds something old and something new.
CREATE INDEX processed_messages_oldest ON processed_messages (processed_at);

CREATE INDEX quarantine_resolved ON quarantine (resolved_at) WHERE state <> 'waiting';
