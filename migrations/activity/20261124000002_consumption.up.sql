-- Messages that could not be counted, with their bytes.
CREATE TABLE quarantine (
    quarantine_id uuid NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    key bytea,
    -- Null where the message had no value.
    value bytea,
    -- The type of the CloudEvents header, which carries the version; null where there was none.
    ce_type bytea,
    value_sha256 bytea NOT NULL GENERATED ALWAYS AS (sha256(coalesce(value, ''))) STORED,
    reason text NOT NULL,
    detail text NOT NULL,
    -- The type it claims to be, where that could be read: its registration finds it by this.
    activity_type_code text,
    state text NOT NULL DEFAULT 'waiting',
    received_at timestamptz NOT NULL DEFAULT now(),
    -- What ended the waiting: when, who did it, and why.
    resolved_at timestamptz,
    resolved_by text,
    resolution text,
    CONSTRAINT quarantine_pkey PRIMARY KEY (quarantine_id),
    -- A message delivered again is the same row; a topic created anew may hold another message at
    -- the same offset, hence the hash.
    CONSTRAINT quarantine_position UNIQUE (topic, partition, "offset", value_sha256),
    CONSTRAINT quarantine_reason_known CHECK (reason IN (
        'no value', 'not json', 'bad field', 'unknown type', 'unknown version', 'bad date', 'too old', 'not storable')),
    CONSTRAINT quarantine_state_known CHECK (state IN ('waiting', 'counted', 'discarded')),
    CONSTRAINT quarantine_audited CHECK (
        num_nonnulls(resolved_at, resolved_by, resolution) = CASE state WHEN 'waiting' THEN 0 ELSE 3 END)
);

-- The list and the replay go through those that wait, the oldest first: an id begins with the time
-- it was drawn at.
CREATE INDEX quarantine_waiting ON quarantine (quarantine_id) WHERE state = 'waiting';

-- A registration goes through those that wait for its type.
CREATE INDEX quarantine_waiting_for_type ON quarantine (activity_type_code, quarantine_id)
    WHERE state = 'waiting' AND reason = 'unknown type';

-- What is to be read next of each partition, written with the batch it follows from. Kafka's own
-- group offsets decide where reading resumes; these are for lag and for checks.
CREATE TABLE consumer_positions (
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    CONSTRAINT consumer_positions_pkey PRIMARY KEY (topic, partition)
)
WITH (fillfactor = 10);
