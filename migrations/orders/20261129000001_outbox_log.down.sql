-- With every order-service stopped. Everything is carried back: lines, messages with their states, failures.
LOCK TABLE orders, outbox, published, rejected_messages, instances IN ACCESS EXCLUSIVE MODE;

DO $$
BEGIN
    IF EXISTS (
        SELECT FROM instances i JOIN pg_locks l
            ON l.classid = (i.instance_id >> 32)::oid AND l.objid = (i.instance_id & 4294967295)::oid
        WHERE l.locktype = 'advisory' AND l.objsubid = 1
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ) THEN
        RAISE EXCEPTION 'an order-service is running on this database: stop all of them, then revert';
    END IF;
END
$$;

CREATE TABLE order_items (
    order_id bigint NOT NULL,
    line_number smallint NOT NULL,
    product_id uuid NOT NULL,
    quantity integer NOT NULL,
    CONSTRAINT order_items_pkey PRIMARY KEY (order_id, line_number),
    CONSTRAINT order_items_quantity_in_range CHECK (quantity BETWEEN 1 AND 1000000)
);
INSERT INTO order_items (order_id, line_number, product_id, quantity)
SELECT order_id, line_number, product_id, quantity
FROM orders CROSS JOIN LATERAL UNNEST(product_ids, quantities) WITH ORDINALITY AS l (product_id, quantity, line_number);
ALTER TABLE order_items ADD CONSTRAINT order_items_order_fkey
    FOREIGN KEY (order_id) REFERENCES orders (order_id) ON DELETE CASCADE;
ALTER TABLE orders DROP CONSTRAINT orders_lines, DROP COLUMN product_ids, DROP COLUMN quantities;

-- Each place once, as it was acknowledged last: from the view, whose question is that of one message, a million
-- of them would take hours.
CREATE TEMPORARY TABLE marks ON COMMIT DROP AS
SELECT DISTINCT ON (instance, seq) p.instance, p.block * 4096 + one.seq AS seq, one.partition, one."offset", p.published_at
FROM published p, UNNEST(p.seqs, p.partitions, p.offsets) AS one (seq, partition, "offset")
ORDER BY instance, seq, published_at DESC;
ANALYZE marks;

CREATE TEMPORARY TABLE carried ON COMMIT DROP AS
SELECT message_ref, order_id, activity_type_code, activity_at, a.key, a.value, a.headers, failures, last_error,
    CASE WHEN m.state = 'failed' THEN 'failed' WHEN m.state IS NULL AND published_at IS NOT NULL THEN 'published'
        ELSE 'unpublished' END AS state,
    marks.published_at, marks.partition, marks."offset"
FROM (
    SELECT m.*, r.state, coalesce(r.failures, 0) AS failures, r.last_error
    FROM outbox m LEFT JOIN rejected_messages r USING (message_ref)
    UNION ALL
    SELECT message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at, format,
        traceparent, tracestate, r.state, r.failures, r.last_error
    FROM rejected_messages r
    WHERE NOT EXISTS (SELECT FROM outbox m WHERE m.message_ref = r.message_ref)
) m
CROSS JOIN LATERAL announcement(
    message_ref, activity_type_code, activity_at, order_id, order_version, traceparent, tracestate) a
LEFT JOIN marks USING (instance, seq);

DROP VIEW outbox_messages;
DROP FUNCTION drop_published_partition, drop_outbox_partition, make_partitions, make_partition, partition_day,
    settled_to, first_reference;
DROP TABLE outbox, published, rejected_messages, rebroadcasts, instances;

CREATE SEQUENCE instance_id AS bigint;
CREATE TABLE instances (
    instance_id bigint NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    CONSTRAINT instances_pkey PRIMARY KEY (instance_id)
);
INSERT INTO instances (instance_id, started_at, ended_at) VALUES (0, '-infinity', '-infinity');

CREATE TABLE outbox (
    message_ref uuid NOT NULL,
    order_id bigint NOT NULL,
    activity_type_code text NOT NULL,
    placed_at timestamptz NOT NULL,
    key text NOT NULL,
    value text NOT NULL,
    headers text[] NOT NULL,
    owner bigint NOT NULL,
    state text NOT NULL DEFAULT 'unpublished',
    failures integer NOT NULL DEFAULT 0,
    last_error text,
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
WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);

INSERT INTO outbox (message_ref, order_id, activity_type_code, placed_at, key, value, headers, owner, state, failures,
    last_error, published_at, partition, "offset")
SELECT message_ref, order_id, activity_type_code, activity_at, key, value, headers, 0, state, failures, last_error,
    CASE WHEN state = 'published' THEN published_at END, CASE WHEN state = 'published' THEN partition END,
    CASE WHEN state = 'published' THEN "offset" END
FROM carried;

CREATE INDEX outbox_unpublished ON outbox (owner, message_ref) WHERE state = 'unpublished';
CREATE INDEX outbox_failed ON outbox (message_ref) WHERE state = 'failed';
