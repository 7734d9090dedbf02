-- Keys leave by dropping a partition, so that nothing is deleted row by row and no dead row is left.
-- The services are stopped; whatever writes all the same waits here, and finds another table then.
LOCK TABLE processed_messages, message_copies IN ACCESS EXCLUSIVE MODE;

-- Where a key belongs follows from its reference alone, never from the time of asking: else the same
-- reference could be new in one place and known in another.
--
-- A UUIDv7 carries its time, in milliseconds, in its first 48 bits: it belongs to that day in UTC. Undated
-- is every other version, whose first bits may fall on any day, and a time that no clock tells: before 2020
-- there were no UUIDv7, and milliseconds taken for seconds or microseconds come out before it or after 2100.
-- The version decides, not only the time: of random references every hundredth falls between the two years,
-- each on a day of its own, and would need a partition for itself.
CREATE FUNCTION key_is_undated(reference uuid) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN reference < '016f5e66-e800-0000-0000-000000000000' OR reference >= '03bb2cc3-d800-0000-0000-000000000000'
    OR get_byte(uuid_send(reference), 6) >> 4 <> 7;

-- The least reference of a day.
CREATE FUNCTION key_day_begin(day date) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN rpad(lpad(to_hex((day - date '1970-01-01') * bigint '86400000'), 12, '0'), 32, '0')::uuid;

-- The day of a dated reference.
CREATE FUNCTION key_day(reference uuid) RETURNS date
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN date '1970-01-01' + (('x' || left(replace(reference::text, '-', ''), 12))::bit(48)::bigint / 86400000)::integer;

ALTER TABLE processed_messages RENAME TO processed_messages_before;
ALTER TABLE processed_messages_before RENAME CONSTRAINT processed_messages_pkey TO processed_messages_before_pkey;

-- The key of every message that was counted: what makes a second delivery harmless. Never updated. The wide
-- columns come first and the texts last, so that nothing is lost to alignment. The texts are as long as a
-- code and the name of a topic may be: Postgres sees that no row needs a TOAST table, which would be two
-- more files for each day.
CREATE TABLE processed_messages (
    message_ref uuid NOT NULL,
    activity_at timestamptz NOT NULL,
    processed_at timestamptz NOT NULL DEFAULT now(),
    "offset" bigint NOT NULL,
    partition integer NOT NULL,
    -- The day it was counted for, so that the figures can be recounted from the keys alone: what day a zone
    -- had at a time may change with the zone's rules.
    activity_date date NOT NULL,
    undated boolean NOT NULL,
    activity_type_code varchar(64) NOT NULL,
    topic varchar(249) NOT NULL,
    -- Of the table, not of each partition: a reference is unique whatever its day. That it includes undated,
    -- which follows from the reference, changes nothing, and lets the undated have a partition of their own.
    CONSTRAINT processed_messages_pkey PRIMARY KEY (message_ref, undated),
    CONSTRAINT processed_messages_undated CHECK (undated = key_is_undated(message_ref))
) PARTITION BY RANGE (undated, message_ref);

-- Purged row by row. The index tells the oldest; the partition of a day needs none.
CREATE TABLE processed_messages_undated PARTITION OF processed_messages
    FOR VALUES FROM (true, MINVALUE) TO (true, MAXVALUE);
CREATE INDEX processed_messages_undated_oldest ON processed_messages_undated (processed_at);

-- The service cannot change the schema. What it needs for the partitions is done for it by the owner of these
-- functions, which touch partitions of days and nothing else. Their lock_timeout is how long others may stand
-- in line behind them.

-- Does nothing where it is there. CREATE and ATTACH, not CREATE ... PARTITION OF: readers and writers of the
-- table go on meanwhile, and nobody waits behind a reader who stays for hours.
CREATE FUNCTION make_key_partition(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    name text := 'processed_messages_' || to_char(day, 'YYYYMMDD');
BEGIN
    -- One at a time; others who want the same day find it made.
    LOCK TABLE processed_messages IN SHARE UPDATE EXCLUSIVE MODE;
    IF to_regclass(name) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE processed_messages INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
    EXECUTE format('ALTER TABLE processed_messages ATTACH PARTITION %I FOR VALUES FROM (false, %L) TO (false, %L)',
        name, key_day_begin(day), key_day_begin(day + 1));
END
$$;

-- Shuts everybody out of a partition until the transaction ends. False where somebody is in it, or it is gone.
CREATE FUNCTION lock_key_partition(day date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '20ms' AS $$
DECLARE
    name text := 'processed_messages_' || to_char(day, 'YYYYMMDD');
BEGIN
    IF to_regclass(name) IS NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', name);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;

-- Gives the room back. Other partitions are not touched, nor is the table.
CREATE FUNCTION empty_key_partition(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '20ms' AS $$
BEGIN
    EXECUTE format('TRUNCATE %I', 'processed_messages_' || to_char(day, 'YYYYMMDD'));
END
$$;

-- Removes an empty partition. This locks the whole table for a moment: false where that is not to be had, or
-- a key has come.
CREATE FUNCTION drop_key_partition(day date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '20ms' AS $$
DECLARE
    name text := 'processed_messages_' || to_char(day, 'YYYYMMDD');
    is_empty boolean;
BEGIN
    LOCK TABLE processed_messages IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('SELECT NOT EXISTS (SELECT FROM %I)', name) INTO is_empty;
    IF is_empty THEN
        EXECUTE format('DROP TABLE %I', name);
    END IF;
    RETURN is_empty;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;

-- They run with the owner's rights: nothing but this schema may lend them a name.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['make_key_partition', 'lock_key_partition', 'empty_key_partition', 'drop_key_partition'] LOOP
        EXECUTE format('ALTER FUNCTION %I(date) SET search_path = %I, pg_temp', name, current_schema());
    END LOOP;
END
$$;

-- The days that have a partition.
CREATE VIEW key_days AS
SELECT to_date(right(relname, 8), 'YYYYMMDD') AS day
FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = 'processed_messages'::regclass AND relname ~ '^processed_messages_[0-9]{8}$';

-- What was found in a partition that is too young to go, or has messages that can still be read: it is not
-- read again before that has changed. Of each partition of a topic the last offset, copies included.
CREATE TABLE key_day_ends (
    day date NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    last_offset bigint NOT NULL,
    last_processed_at timestamptz NOT NULL,
    CONSTRAINT key_day_ends_pkey PRIMARY KEY (day, topic, partition)
);

DO $$
DECLARE
    day date;
BEGIN
    FOR day IN
        SELECT key_day(message_ref) FROM processed_messages_before WHERE NOT key_is_undated(message_ref)
        -- and of the week to come; later ones the service makes
        UNION SELECT (now() AT TIME ZONE 'UTC')::date + ahead FROM generate_series(0, 7) AS ahead
    LOOP
        PERFORM make_key_partition(day);
    END LOOP;
END
$$;

INSERT INTO processed_messages
    (message_ref, activity_at, processed_at, "offset", partition, activity_date, undated, activity_type_code, topic)
SELECT message_ref, activity_at, processed_at, "offset", partition, activity_date, key_is_undated(message_ref),
    activity_type_code, topic
FROM processed_messages_before;

DROP TABLE processed_messages_before;
