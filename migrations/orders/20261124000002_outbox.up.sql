-- The processes that publish. A row is in the memory of at most one of them: its owner. What proves
-- that one is alive is no row but the advisory lock that its session holds.
CREATE SEQUENCE instance_id AS bigint;

CREATE TABLE instances (
    instance_id bigint NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    -- From then on the messages this identity still owns may be claimed by others.
    ended_at timestamptz,
    CONSTRAINT instances_pkey PRIMARY KEY (instance_id)
);

-- Nobody: owns what did not fit into any queue. Always ended, so that the claim has one rule.
INSERT INTO instances (instance_id, started_at, ended_at) VALUES (0, '-infinity', '-infinity');

CREATE TABLE outbox (
    message_ref uuid NOT NULL,
    order_id bigint NOT NULL,
    activity_type_code text NOT NULL,
    placed_at timestamptz NOT NULL,
    -- Stored as they go on the wire: a message sent again is the same, byte for byte.
    key text NOT NULL,
    value text NOT NULL,
    -- Name, value, name, value, ...: the order is part of the bytes.
    headers text[] NOT NULL,
    owner bigint NOT NULL,
    state text NOT NULL DEFAULT 'unpublished',
    -- Rejections by the broker. An outage is not the message's fault and is not counted.
    failures integer NOT NULL DEFAULT 0,
    last_error text,
    -- Set where a rejected message waits out its back-off here and not in a queue.
    retry_at timestamptz,
    published_at timestamptz,
    partition integer,
    "offset" bigint,
    CONSTRAINT outbox_pkey PRIMARY KEY (message_ref),
    CONSTRAINT outbox_state_known CHECK (state IN ('unpublished', 'published', 'failed')),
    CONSTRAINT outbox_headers_paired CHECK (cardinality(headers) % 2 = 0),
    CONSTRAINT outbox_published_has_place CHECK (
        (state = 'published') = (published_at IS NOT NULL AND partition IS NOT NULL AND "offset" IS NOT NULL))
)
-- Every row is written once and marked once, within seconds: without room on its page the mark
-- would go to another page and the first would stay half empty until VACUUM.
WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);

-- What is still to be sent, by owner: the claim and the search for rows without a living owner
-- read the entries of ended owners only, never past those that a living one has just marked.
CREATE INDEX outbox_unpublished ON outbox (owner, message_ref) WHERE state = 'unpublished';

-- The few that wait for an operator.
CREATE INDEX outbox_failed ON outbox (message_ref) WHERE state = 'failed';
