-- The tables of commit c7d43a1, from before the outbox was a log: its migrations of orders, one after the other.

CREATE SEQUENCE order_number AS bigint;

-- How an order is named outside: OS, the number with at least six digits, -ORD.
CREATE FUNCTION order_ref(order_id bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'OS' || lpad(order_id::text, greatest(6, length(order_id::text)), '0') || '-ORD';

CREATE TABLE orders (
    order_id bigint NOT NULL,
    customer_ref text NOT NULL,
    status text NOT NULL DEFAULT 'New',
    -- Grows by one with each change; announced with it, so that a reader of the topic can
    -- tell the order of two messages that arrive the wrong way round.
    version integer NOT NULL DEFAULT 1,
    number_of_items smallint NOT NULL,
    placed_at timestamptz NOT NULL,
    CONSTRAINT orders_pkey PRIMARY KEY (order_id),
    CONSTRAINT orders_customer_ref_length CHECK (char_length(customer_ref) BETWEEN 1 AND 64),
    CONSTRAINT orders_status_known CHECK (status IN ('New', 'Pending', 'Placed', 'Fulfilled', 'Cancelled')),
    CONSTRAINT orders_version_positive CHECK (version >= 1),
    CONSTRAINT orders_number_of_items_in_range CHECK (number_of_items BETWEEN 1 AND 200)
);

-- The lists are newest first and page by (placed_at, order_id): one index for all orders, one
-- for those of a customer. Both grow at their right end only or at one place per customer.
CREATE INDEX orders_newest ON orders (placed_at, order_id);
CREATE INDEX orders_newest_of_customer ON orders (customer_ref, placed_at, order_id);

CREATE TABLE order_items (
    order_id bigint NOT NULL,
    line_number smallint NOT NULL,
    product_id uuid NOT NULL,
    quantity integer NOT NULL,
    CONSTRAINT order_items_pkey PRIMARY KEY (order_id, line_number),
    CONSTRAINT order_items_order_fkey FOREIGN KEY (order_id) REFERENCES orders (order_id) ON DELETE CASCADE,
    CONSTRAINT order_items_quantity_in_range CHECK (quantity BETWEEN 1 AND 1000000)
);

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

-- How what happened to an order is announced: the bytes of its message. Whatever writes to the outbox
-- takes them from here. A message that is to look otherwise one day needs a function of another name:
-- the version before it still runs while the schema is already new.
--
-- Nothing in the value comes from a caller, so nothing needs escaping. STABLE and one SELECT, so that
-- Postgres puts it into the statement that uses it instead of calling it.
CREATE FUNCTION announcement(
    message_ref uuid, activity_type_code text, activity_at timestamptz, order_id bigint, order_version integer,
    traceparent text, tracestate text
) RETURNS TABLE (key text, value text, headers text[])
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT
        order_ref(order_id),
        format('{"messageRef":"%s","activityTypeCode":"%s","activityAt":"%s","orderRef":"%s","orderVersion":%s}',
            message_ref, activity_type_code, moment.text, order_ref(order_id), order_version),
        ARRAY['ce_specversion', '1.0', 'ce_id', message_ref::text,
            'ce_type', 'summarisation.' || activity_type_code || '.v1',
            'ce_source', '/order-service', 'ce_time', moment.text, 'content-type', 'application/json']
            || CASE WHEN traceparent IS NULL THEN '{}' ELSE ARRAY['traceparent', traceparent] END
            || CASE WHEN tracestate IS NULL THEN '{}' ELSE ARRAY['tracestate', tracestate] END
    FROM (SELECT to_char(activity_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS text) AS moment;
END;

-- The keys under which callers placed orders, each with all it takes to give the same answer again:
-- what an order's number and time do not tell of its answer is in the request, whose fingerprint is
-- kept. The order's status is not: the answer tells the one it began with.
CREATE TABLE idempotency_keys (
    -- SHA-256 of caller and key: of one length whatever they are, and no text of a caller's.
    caller_key bytea NOT NULL,
    -- SHA-256 of the request as it was understood.
    fingerprint bytea NOT NULL,
    order_id bigint NOT NULL,
    placed_at timestamptz NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (caller_key),
    CONSTRAINT idempotency_keys_caller_key_length CHECK (octet_length(caller_key) = 32),
    CONSTRAINT idempotency_keys_fingerprint_length CHECK (octet_length(fingerprint) = 32)
);

-- The purge takes the oldest first.
CREATE INDEX idempotency_keys_oldest ON idempotency_keys (placed_at);
