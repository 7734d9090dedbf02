-- What operators do, and what they see of a message: who did what, each refusal of the broker, messages that were
-- given up for good. A version of the program before this one goes on working.

-- Who changed what, when and why. Rows are added and read, never changed: the service's role can do nothing else.
-- One row for every order completed or cancelled, so it has few indexes, and no column that repeats another.
CREATE TABLE audit (
    audit_id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT now(),
    -- The subject of the token, the name given on the command line, or the address that asked the management port.
    actor text NOT NULL,
    via text NOT NULL,
    action text NOT NULL,
    -- What was changed, as the API names it.
    subject text NOT NULL,
    reason text,
    request_id text,
    -- Of the command line only, where anybody may give any name: the system's user and the database's role.
    os_user text,
    database_role text,
    CONSTRAINT audit_pkey PRIMARY KEY (at, audit_id),
    CONSTRAINT audit_via_known CHECK (via IN ('api', 'command', 'management'))
);

CREATE INDEX audit_subject ON audit (subject);
CREATE INDEX audit_actor ON audit (actor, at, audit_id);
-- Orders are completed and cancelled all the time: those of the list are found soon. Everything else is rare.
CREATE INDEX audit_action ON audit (action, at, audit_id) WHERE action NOT IN ('order_completed', 'order_cancelled');

-- Each refusal of the broker. What became of the message is in rejected_messages, and nowhere once it was published.
CREATE TABLE rejections (
    message_ref uuid NOT NULL,
    rejected_at timestamptz NOT NULL DEFAULT now(),
    -- Who had sent it.
    instance bigint NOT NULL,
    failures integer NOT NULL,
    error text,
    -- At the threshold: from then on it waits for an operator.
    is_failed boolean NOT NULL
);

CREATE INDEX rejections_message ON rejections (message_ref);
CREATE INDEX rejections_oldest ON rejections (rejected_at);

-- discarded: an operator has decided that it is never sent. The row stays, with the reason.
ALTER TABLE rejected_messages
    ADD COLUMN discarded_at timestamptz,
    ADD COLUMN discarded_by text,
    ADD COLUMN discard_reason text,
    DROP CONSTRAINT rejected_messages_state_known,
    ADD CONSTRAINT rejected_messages_state_known CHECK (state IN ('waiting', 'failed', 'retrying', 'discarded')),
    ADD CONSTRAINT rejected_messages_discarded CHECK (
        (state = 'discarded') = (discarded_at IS NOT NULL AND discarded_by IS NOT NULL AND discard_reason IS NOT NULL));

CREATE INDEX rejected_messages_discarded ON rejected_messages (message_ref) WHERE state = 'discarded';
CREATE INDEX rejected_messages_order ON rejected_messages (order_id);
-- The messages of an order. That of its placement is written about when its number was drawn: a range of pages has a
-- range of numbers, which costs a placement nothing. An entry of a B-tree would be 66 bytes of WAL. Those of changes come
-- at any time.
CREATE INDEX outbox_placements ON outbox USING brin (order_id) WITH (pages_per_range = 16, autosummarize = on)
    WHERE order_version = 1;
CREATE INDEX outbox_changes ON outbox (order_id) WHERE order_version > 1;

-- 100 at most: an order is placed and ends, each once.
CREATE FUNCTION messages_of_order(number bigint) RETURNS uuid[]
LANGUAGE sql STABLE PARALLEL SAFE
RETURN ARRAY(
    SELECT message_ref FROM outbox WHERE order_id = number AND order_version = 1
    UNION
    SELECT message_ref FROM outbox WHERE order_id = number AND order_version > 1
    UNION
    SELECT message_ref FROM rejected_messages WHERE order_id = number
    LIMIT 100
);

-- Each message with its state, for people: docs/operations.md explains the columns.
CREATE OR REPLACE VIEW outbox_messages AS
WITH messages AS (
    SELECT m.*, r.state AS rejection, r.failures, r.last_error, r.discarded_at, r.discarded_by, r.discard_reason
    FROM outbox m LEFT JOIN rejected_messages r USING (message_ref)
    UNION ALL
    SELECT message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at, format,
        traceparent, tracestate, r.state, r.failures, r.last_error, r.discarded_at, r.discarded_by, r.discard_reason
    FROM rejected_messages r
    WHERE NOT EXISTS (SELECT FROM outbox m WHERE m.message_ref = r.message_ref)
)
SELECT
    m.message_ref,
    m.order_id,
    a.key AS order_ref,
    m.activity_type_code,
    m.order_version,
    m.activity_at,
    CASE
        WHEN m.rejection IN ('failed', 'discarded') THEN m.rejection
        WHEN m.rejection IS NULL AND p.published_at IS NOT NULL THEN 'published'
        ELSE 'unpublished'
    END AS state,
    coalesce(m.failures, 0) AS failures,
    m.last_error,
    m.instance,
    m.seq,
    CASE WHEN m.rejection IS NULL THEN p.published_at END AS published_at,
    CASE WHEN m.rejection IS NULL THEN p.partition END AS partition,
    CASE WHEN m.rejection IS NULL THEN p."offset" END AS "offset",
    a.key,
    a.value,
    a.headers,
    m.discarded_at,
    m.discarded_by,
    m.discard_reason
FROM messages m
CROSS JOIN LATERAL announcement(
    m.message_ref, m.activity_type_code, m.activity_at, m.order_id, m.order_version, m.traceparent, m.tracestate) a
LEFT JOIN LATERAL (
    SELECT p.published_at, p.partitions[n.place] AS partition, p.offsets[n.place] AS "offset"
    FROM published p CROSS JOIN LATERAL array_position(p.seqs, (m.seq % 4096)::smallint) AS n (place)
    WHERE p.instance = m.instance AND p.block = m.seq / 4096 AND n.place IS NOT NULL
    ORDER BY p.published_at DESC LIMIT 1
) p ON true;
