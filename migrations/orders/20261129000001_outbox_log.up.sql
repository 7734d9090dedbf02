-- The outbox becomes a log: a message is written once and never changed. What was acknowledged is a row of
-- its own, and who sends a message follows from whose log it stands in. docs/decisions has the figures.
--
-- With every order-service stopped: this one changes what the running version writes to.
LOCK TABLE orders, order_items, outbox, instances IN ACCESS EXCLUSIVE MODE;

DO $$
BEGIN
    -- The locks on identities of the versions before: "inst" in ASCII, then the identity.
    IF EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND classid = 1768846196 AND objsubid = 2
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ) THEN
        RAISE EXCEPTION 'an order-service is running on this database: stop all of them, then migrate';
    END IF;
END
$$;

ALTER TABLE outbox RENAME TO outbox_before;
ALTER TABLE outbox_before RENAME CONSTRAINT outbox_pkey TO outbox_before_pkey;
ALTER TABLE instances RENAME TO instances_before;
ALTER TABLE instances_before RENAME CONSTRAINT instances_pkey TO instances_before_pkey;
DROP SEQUENCE instance_id;

-- The processes that publish, one row for each identity one of them has had. What proves that an identity is
-- alive is no row but the advisory lock on its number, which its session holds.
CREATE TABLE instances (
    -- The seconds since 1970, then 20 random bits: a database restored from a backup gives no number again.
    instance_id bigint NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    -- From then on its log takes no new message, and another identity sends what is left in it: the adopter.
    ended_at timestamptz,
    adopter bigint,
    -- From then on no transaction of before the end is under way: nothing more is committed to its log.
    closed_at timestamptz,
    -- From then on nothing in its log is left to be sent.
    done_at timestamptz,
    CONSTRAINT instances_pkey PRIMARY KEY (instance_id),
    CONSTRAINT instances_in_order CHECK (
        (adopter IS NULL OR ended_at IS NOT NULL) AND (closed_at IS NULL OR ended_at IS NOT NULL)
        AND (done_at IS NULL OR closed_at IS NOT NULL))
);

-- Every message, by its place in the log of the identity that wrote it. Never updated, never deleted: it leaves
-- with its partition, a day of references. A reference is a UUIDv7, which begins with the time it was drawn at.
CREATE TABLE outbox (
    message_ref uuid NOT NULL,
    instance bigint NOT NULL,
    -- Counted by the writer. A placement that was not committed leaves a gap.
    seq bigint NOT NULL,
    order_id bigint NOT NULL,
    order_version integer NOT NULL,
    activity_type_code text NOT NULL,
    activity_at timestamptz NOT NULL,
    -- How key, value and headers are made of this row. A format is never changed: a message sent again is the
    -- same, byte for byte. Format 1 is the function announcement.
    format smallint NOT NULL,
    traceparent text,
    tracestate text,
    CONSTRAINT outbox_pkey PRIMARY KEY (message_ref)
) PARTITION BY RANGE (message_ref);

CREATE INDEX outbox_log ON outbox (instance, seq);

-- What the broker acknowledged. A row is a fact, true whoever states it and however often. Never updated,
-- never deleted: a partition, a day, goes when the messages are gone that it tells of.
CREATE TABLE published (
    instance bigint NOT NULL,
    -- 4,096 places of a log: whether a message was published is an equality.
    block bigint NOT NULL,
    -- Places within the block, and where each of these messages stands on the topic.
    seqs smallint[] NOT NULL,
    partitions integer[] NOT NULL,
    offsets bigint[] NOT NULL,
    -- Up to this place of the log every message is published, failed, or known not to have been committed. The
    -- newest row of the highest block of a log has the last word.
    settled_to bigint,
    published_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT published_places CHECK (
        cardinality(seqs) = cardinality(partitions) AND cardinality(seqs) = cardinality(offsets))
) PARTITION BY RANGE (published_at);

CREATE INDEX published_blocks ON published (instance, block, published_at);

-- The few messages that the broker refused, each with all it takes to send it: its partition may go.
CREATE TABLE rejected_messages (
    message_ref uuid NOT NULL,
    instance bigint NOT NULL,
    seq bigint NOT NULL,
    order_id bigint NOT NULL,
    order_version integer NOT NULL,
    activity_type_code text NOT NULL,
    activity_at timestamptz NOT NULL,
    format smallint NOT NULL,
    traceparent text,
    tracestate text,
    -- Rejections by the broker. An outage is not the message's fault and is not counted.
    failures integer NOT NULL,
    last_error text,
    -- waiting: for its next attempt, and still the log's. failed: at the threshold, until an operator decides.
    -- retrying: an operator wants it sent again; its holder does.
    state text NOT NULL,
    holder bigint,
    -- Set where nobody holds it until its back-off is over.
    retry_at timestamptz,
    rejected_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT rejected_messages_pkey PRIMARY KEY (message_ref),
    CONSTRAINT rejected_messages_state_known CHECK (state IN ('waiting', 'failed', 'retrying')),
    CONSTRAINT rejected_messages_held CHECK (state = 'retrying' OR holder IS NULL)
);

CREATE INDEX rejected_messages_log ON rejected_messages (instance, seq);
CREATE INDEX rejected_messages_failed ON rejected_messages (message_ref) WHERE state = 'failed';
CREATE INDEX rejected_messages_retrying ON rejected_messages (message_ref) WHERE state = 'retrying';

-- Spans of time whose published messages are published once more, after a topic was lost.
CREATE TABLE rebroadcasts (
    rebroadcast_id uuid NOT NULL,
    -- Of what happened from the first moment on, before the second.
    from_at timestamptz NOT NULL,
    to_at timestamptz NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    -- Every message of the span up to this reference is done.
    done_to uuid NOT NULL,
    holder bigint,
    done_at timestamptz,
    CONSTRAINT rebroadcasts_pkey PRIMARY KEY (rebroadcast_id)
);

CREATE INDEX rebroadcasts_open ON rebroadcasts (rebroadcast_id) WHERE done_at IS NULL;

-- The least reference that can be drawn at a moment.
CREATE FUNCTION first_reference(moment timestamptz) RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

-- How far a log is settled, by its own last word; -1 where it never had one.
CREATE FUNCTION settled_to(log bigint) RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce((
    SELECT p.settled_to FROM published p WHERE p.instance = log AND p.settled_to IS NOT NULL
    ORDER BY p.block DESC, p.published_at DESC LIMIT 1
), -1);

-- Partitions are made and dropped by functions of the schema's owner: the services' role changes no schema.
-- The day of a partition is that of UTC, and the end of its name.
CREATE FUNCTION partition_day(partition text) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN to_timestamp(right(partition, 8) || '+00', 'YYYYMMDDTZH');

CREATE FUNCTION make_partition(moment timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
AS $$
DECLARE
    day timestamptz := date_trunc('day', moment, 'UTC');
    of_messages text := 'outbox_' || to_char(day AT TIME ZONE 'UTC', 'YYYYMMDD');
    of_marks text := 'published_' || to_char(day AT TIME ZONE 'UTC', 'YYYYMMDD');
    next timestamptz := day + interval '24 hours';
    revoke text;
BEGIN
    -- Attached, not created in place: that locks out nobody who reads or writes, nor waits for those who do.
    IF to_regclass(of_messages) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE outbox INCLUDING ALL)', of_messages);
        EXECUTE format('ALTER TABLE outbox ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            of_messages, first_reference(day), first_reference(next));
    END IF;
    IF to_regclass(of_marks) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE published INCLUDING ALL)', of_marks);
        EXECUTE format('ALTER TABLE published ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', of_marks, day, next);
    END IF;
    -- Rows are changed through the table. What default privileges give on a partition itself would be a way past
    -- those of the table.
    FOR revoke IN
        SELECT format('REVOKE INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON %I FROM %s CASCADE',
            relname, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
        FROM pg_class, aclexplode(relacl)
        WHERE pg_class.oid IN (to_regclass(of_messages), to_regclass(of_marks)) AND grantee <> relowner
        GROUP BY relname, grantee
    LOOP
        EXECUTE revoke;
    END LOOP;
END
$$;

-- Makes what is missing from yesterday to so many days ahead. One at a time: whoever comes meanwhile passes by.
CREATE FUNCTION make_partitions(days_ahead integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
AS $$
DECLARE
    today timestamptz := date_trunc('day', now(), 'UTC');
BEGIN
    IF days_ahead > 60 THEN
        RAISE EXCEPTION 'partitions are made for at most 60 days ahead';
    END IF;
    IF pg_try_advisory_xact_lock('outbox'::regclass::oid::bigint) THEN
        FOR day IN -1..days_ahead LOOP
            PERFORM make_partition(today + day * interval '24 hours');
        END LOOP;
    END IF;
END
$$;

-- Removes a day of messages, if it ended so long ago and everything in it is settled. The space is given back at
-- once, with a lock on this partition alone. The empty partition goes when the lock on all of them is to be
-- had within 20 ms: whoever places an order meanwhile waits no longer than that for it. Answers with 'kept',
-- 'emptied' or 'dropped'.
CREATE FUNCTION drop_outbox_partition(name text, kept_for interval) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
AS $$
DECLARE
    is_unsettled boolean;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(name) AND inhparent = 'outbox'::regclass) THEN
        RAISE EXCEPTION 'there is no such partition of outbox';
    END IF;
    IF partition_day(name) + interval '24 hours' + greatest(kept_for, interval '0') > now()
        -- A placement of unknown outcome may be repeated for a day.
        OR partition_day(name) + interval '48 hours' > now() THEN
        RETURN 'kept';
    END IF;
    SET LOCAL lock_timeout = '200ms';
    BEGIN
        EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', name);
    EXCEPTION WHEN lock_not_available THEN
        RETURN 'kept';
    END;
    EXECUTE format($check$
        SELECT EXISTS (
            SELECT FROM instances i CROSS JOIN LATERAL (SELECT settled_to(i.instance_id) AS settled_to OFFSET 0) s
            JOIN %I m ON m.instance = i.instance_id AND m.seq > s.settled_to
            WHERE i.done_at IS NULL
                AND NOT EXISTS (
                    SELECT FROM published p
                    WHERE p.instance = m.instance AND p.block = m.seq / 4096 AND (m.seq %% 4096)::smallint = ANY (p.seqs))
                AND NOT EXISTS (
                    SELECT FROM rejected_messages r WHERE r.message_ref = m.message_ref AND r.state <> 'waiting')
        )
        $check$, name) INTO is_unsettled;
    IF is_unsettled THEN
        RETURN 'kept';
    END IF;
    EXECUTE format('TRUNCATE %I', name);
    SET LOCAL lock_timeout = '20ms';
    BEGIN
        EXECUTE format('DROP TABLE %I', name);
    EXCEPTION WHEN lock_not_available THEN
        RETURN 'emptied';
    END;
    RETURN 'dropped';
END
$$;

-- Removes a day of acknowledgements, once the messages of that day and of the one after it are gone: a
-- reference may be drawn a little ahead of the time at which its message is acknowledged.
CREATE FUNCTION drop_published_partition(name text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(name) AND inhparent = 'published'::regclass) THEN
        RAISE EXCEPTION 'there is no such partition of published';
    END IF;
    IF partition_day(name) + interval '48 hours' > now() OR EXISTS (
        SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'outbox'::regclass AND partition_day(relname) <= partition_day(name) + interval '24 hours'
    ) THEN
        RETURN 'kept';
    END IF;
    SET LOCAL lock_timeout = '20ms';
    BEGIN
        EXECUTE format('DROP TABLE %I', name);
    EXCEPTION WHEN lock_not_available THEN
        RETURN 'kept';
    END;
    RETURN 'dropped';
END
$$;

-- They run with the owner's rights: nothing but this schema may lend them a name.
DO $$
DECLARE
    signature text;
BEGIN
    FOREACH signature IN ARRAY ARRAY['make_partition(timestamptz)', 'make_partitions(integer)',
        'drop_outbox_partition(text, interval)', 'drop_published_partition(text)'] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', signature, current_schema());
    END LOOP;
    -- Any day at all: for the owner's functions only.
    REVOKE EXECUTE ON FUNCTION make_partition(timestamptz) FROM PUBLIC;
    PERFORM make_partitions(7);
END
$$;

-- Each message with its state, for people: docs/operations.md explains the columns.
CREATE VIEW outbox_messages AS
WITH messages AS (
    SELECT m.*, r.state AS rejection, r.failures, r.last_error
    FROM outbox m LEFT JOIN rejected_messages r USING (message_ref)
    UNION ALL
    SELECT message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at, format,
        traceparent, tracestate, r.state, r.failures, r.last_error
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
        WHEN m.rejection = 'failed' THEN 'failed'
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
    a.headers
FROM messages m
CROSS JOIN LATERAL announcement(
    m.message_ref, m.activity_type_code, m.activity_at, m.order_id, m.order_version, m.traceparent, m.tracestate) a
LEFT JOIN LATERAL (
    SELECT p.published_at, p.partitions[n.place] AS partition, p.offsets[n.place] AS "offset"
    FROM published p CROSS JOIN LATERAL array_position(p.seqs, (m.seq % 4096)::smallint) AS n (place)
    WHERE p.instance = m.instance AND p.block = m.seq / 4096 AND n.place IS NOT NULL
    ORDER BY p.published_at DESC LIMIT 1
) p ON true;

-- The lines of an order stand in its row: no second table to write to, and no key to check, whose plan may be
-- one made while the table was small.
ALTER TABLE orders ADD COLUMN product_ids uuid[], ADD COLUMN quantities integer[];
UPDATE orders SET product_ids = lines.product_ids, quantities = lines.quantities
FROM (
    SELECT order_id, array_agg(product_id ORDER BY line_number) AS product_ids,
        array_agg(quantity ORDER BY line_number) AS quantities
    FROM order_items GROUP BY order_id
) lines
WHERE orders.order_id = lines.order_id;
ALTER TABLE orders
    ALTER COLUMN product_ids SET NOT NULL,
    ALTER COLUMN quantities SET NOT NULL,
    ADD CONSTRAINT orders_lines CHECK (
        cardinality(product_ids) = number_of_items AND cardinality(quantities) = number_of_items
        AND array_position(product_ids, NULL) IS NULL AND array_position(quantities, NULL) IS NULL
        AND 1 <= ALL (quantities) AND 1000000 >= ALL (quantities));
DROP TABLE order_items;

-- What the old outbox had becomes the log of an identity that has ended: 0. Nothing can be committed to it any
-- more, and whoever starts first adopts what is unpublished in it.
INSERT INTO instances (instance_id, started_at, ended_at, closed_at, done_at)
SELECT 0, '-infinity', now(), now(), CASE WHEN NOT EXISTS (SELECT FROM outbox_before WHERE state = 'unpublished') THEN now() END
WHERE EXISTS (SELECT FROM outbox_before);

DO $$
DECLARE
    oldest timestamptz;
    newest timestamptz;
BEGIN
    SELECT date_trunc('day', min(at), 'UTC'), max(at) INTO oldest, newest
    FROM (
        SELECT to_timestamp(('x' || left(replace(message_ref::text, '-', ''), 12))::bit(48)::bigint / 1000.0) AS at
        FROM outbox_before
        UNION ALL
        SELECT published_at FROM outbox_before WHERE published_at IS NOT NULL
    ) moments;
    IF oldest < now() - interval '10 years' OR newest > now() + interval '7 days' THEN
        RAISE EXCEPTION 'the outbox has a message of %, which no order-service can have written', newest;
    END IF;
    WHILE oldest <= newest LOOP
        PERFORM make_partition(oldest);
        oldest := oldest + interval '24 hours';
    END LOOP;
END
$$;

CREATE TEMPORARY TABLE carried ON COMMIT DROP AS
SELECT o.*, row_number() OVER (ORDER BY message_ref) - 1 AS seq,
    (substring(value FROM '"orderVersion":([0-9]+)'))::integer AS order_version,
    headers[array_position(headers, 'traceparent') + 1] AS traceparent,
    headers[array_position(headers, 'tracestate') + 1] AS tracestate
FROM outbox_before o;

INSERT INTO outbox (
    message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at, format, traceparent, tracestate)
SELECT message_ref, 0, seq, order_id, order_version, activity_type_code, placed_at, 1, traceparent, tracestate
FROM carried;

INSERT INTO published (instance, block, seqs, partitions, offsets, settled_to, published_at)
SELECT 0, seq / 4096, array_agg((seq % 4096)::smallint ORDER BY seq), array_agg(partition ORDER BY seq),
    array_agg("offset" ORDER BY seq), NULL, published_at
FROM carried WHERE state = 'published'
GROUP BY seq / 4096, published_at;

INSERT INTO rejected_messages (message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at,
    format, traceparent, tracestate, failures, last_error, state)
SELECT message_ref, 0, seq, order_id, order_version, activity_type_code, placed_at, 1, traceparent, tracestate,
    failures, last_error, CASE state WHEN 'failed' THEN 'failed' ELSE 'waiting' END
FROM carried WHERE state = 'failed' OR (state = 'unpublished' AND failures > 0);

-- Its last word: everything before the first message that is still to be sent is settled.
INSERT INTO published (instance, block, seqs, partitions, offsets, settled_to)
SELECT 0, max(seq) / 4096, '{}', '{}', '{}', coalesce(min(seq) FILTER (WHERE state = 'unpublished') - 1, max(seq))
FROM carried HAVING count(*) > 0;

CREATE TEMPORARY TABLE marks ON COMMIT DROP AS
SELECT p.block * 4096 + one.seq AS seq, one.partition, one."offset", p.published_at
FROM published p, UNNEST(p.seqs, p.partitions, p.offsets) AS one (seq, partition, "offset");
ANALYZE marks;
ANALYZE outbox;

DO $$
BEGIN
    -- The bytes of every message are what they were, and so is where it stands.
    -- Counted, not EXISTS: that would be planned for a first row, which is not there.
    IF 0 < (
        SELECT count(*) FROM outbox_before b LEFT JOIN (
            SELECT m.message_ref, m.seq, a.* FROM outbox m, announcement(m.message_ref, m.activity_type_code,
                m.activity_at, m.order_id, m.order_version, m.traceparent, m.tracestate) a
        ) m USING (message_ref) LEFT JOIN marks p ON p.seq = m.seq
        WHERE (m.key, m.value, m.headers) IS DISTINCT FROM (b.key, b.value, b.headers)
            OR (p.partition, p."offset", p.published_at) IS DISTINCT FROM (b.partition, b."offset", b.published_at)
    ) THEN
        RAISE EXCEPTION 'a message would not be the same any more: nothing was changed';
    END IF;
END
$$;

DROP TABLE outbox_before;
DROP TABLE instances_before;
