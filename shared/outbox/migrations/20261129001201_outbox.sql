-- The tables of the outbox, for a service that begins with it: a link to this file, or a copy, is its first migration.
-- order-service came to the same tables step by step, see migrations/orders; a test holds the two against each other.

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
    -- How long its process may be gone before it is taken over, as its own settings say. Whoever has a shorter setting waits
    -- for this one.
    takeover_after interval,
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
    -- Of format 1: to which thing it happened, by its number, and the version it has since. Else 0.
    order_id bigint NOT NULL,
    order_version integer NOT NULL,
    activity_type_code text NOT NULL,
    activity_at timestamptz NOT NULL,
    -- How key, value and headers are made of this row. A format is never changed: a message sent again is the
    -- same, byte for byte.
    format smallint NOT NULL,
    traceparent text,
    tracestate text,
    -- Of format 2: the key, and the fields of the value beside what every message has.
    key text,
    fields text,
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
    -- retrying: an operator wants it sent again; its holder does. discarded: an operator has decided that it is never sent.
    state text NOT NULL,
    holder bigint,
    -- Set where nobody holds it until its back-off is over.
    retry_at timestamptz,
    rejected_at timestamptz NOT NULL DEFAULT now(),
    discarded_at timestamptz,
    discarded_by text,
    discard_reason text,
    key text,
    fields text,
    CONSTRAINT rejected_messages_pkey PRIMARY KEY (message_ref),
    CONSTRAINT rejected_messages_state_known CHECK (state IN ('waiting', 'failed', 'retrying', 'discarded')),
    CONSTRAINT rejected_messages_held CHECK (state = 'retrying' OR holder IS NULL),
    CONSTRAINT rejected_messages_discarded CHECK (
        (state = 'discarded') = (discarded_at IS NOT NULL AND discarded_by IS NOT NULL AND discard_reason IS NOT NULL))
);

CREATE INDEX rejected_messages_log ON rejected_messages (instance, seq);
CREATE INDEX rejected_messages_failed ON rejected_messages (message_ref) WHERE state = 'failed';
CREATE INDEX rejected_messages_retrying ON rejected_messages (message_ref) WHERE state = 'retrying';
CREATE INDEX rejected_messages_discarded ON rejected_messages (message_ref) WHERE state = 'discarded';

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

-- That announcing rests, on all instances: at most one row. It is over when the row is gone, or at `until` by the clock of
-- the database. What was paused before is in the audit.
CREATE TABLE pause (
    is_it boolean NOT NULL DEFAULT true,
    reason text NOT NULL,
    paused_by text NOT NULL,
    paused_at timestamptz NOT NULL DEFAULT now(),
    until timestamptz,
    CONSTRAINT pause_pkey PRIMARY KEY (is_it),
    CONSTRAINT pause_is_one CHECK (is_it)
);

-- How far each log is settled in time: a row a second at most, only where that has moved. Inserted, not updated: the
-- newest is found at once, whoever holds an old snapshot. Retention leaves one row of each log.
CREATE TABLE log_progress (
    instance bigint NOT NULL,
    -- Every message of the log whose time is at or before it is published or failed, and no other can come.
    settled_until timestamptz NOT NULL,
    -- So is every message up to this place. Those behind it have a later time.
    settled_to bigint NOT NULL,
    CONSTRAINT log_progress_pkey PRIMARY KEY (instance, settled_until)
);

-- What was told, or was about to be: it never goes back. A row each time, of which retention leaves the last.
CREATE TABLE announced (
    announced_to timestamptz NOT NULL,
    told_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT announced_pkey PRIMARY KEY (announced_to, told_at)
);

-- Up to when every message of every log is published or failed. A log that has stated nothing yet has no message
-- from before its start.
CREATE FUNCTION announced_to() RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (
    SELECT min(coalesce(
        (SELECT p.settled_until FROM log_progress p WHERE p.instance = i.instance_id ORDER BY p.settled_until DESC LIMIT 1),
        i.started_at - interval '1 microsecond'))
    FROM instances i WHERE i.done_at IS NULL
);

-- How far the messages of each log are counted, each once. A log is whole when it is done and counted to its end.
CREATE TABLE counted_logs (
    instance bigint NOT NULL,
    counted_to bigint NOT NULL DEFAULT -1,
    is_whole boolean NOT NULL DEFAULT false,
    CONSTRAINT counted_logs_pkey PRIMARY KEY (instance)
);

-- By the minute and the type of what is counted so far.
CREATE TABLE message_counts (
    minute timestamptz NOT NULL,
    activity_type_code text NOT NULL,
    quantity bigint NOT NULL,
    CONSTRAINT message_counts_pkey PRIMARY KEY (minute, activity_type_code)
);

-- The next minute to be told, one row.
CREATE TABLE told_counts (
    next_minute timestamptz NOT NULL,
    is_only boolean NOT NULL DEFAULT true,
    CONSTRAINT told_counts_pkey PRIMARY KEY (is_only),
    CONSTRAINT told_counts_only CHECK (is_only)
);

INSERT INTO told_counts (next_minute) VALUES (date_trunc('minute', now(), 'UTC') + interval '1 minute');
