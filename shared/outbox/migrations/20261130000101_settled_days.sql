-- A day of the outbox was read whole to see whether everything in it is settled, and whoever reads the outbox waited for
-- that: seconds, where a day has 50 million messages. It is asked for each log by the index now, and once before the day
-- is locked.
CREATE FUNCTION is_settled_outbox_partition(name text) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    log record;
    is_unsettled boolean;
BEGIN
    -- A plan for each log: what the statistics say of one is wrong for another.
    FOR log IN SELECT instance_id, settled_to(instance_id) AS settled_to FROM instances WHERE done_at IS NULL LOOP
        EXECUTE format($check$
            SELECT EXISTS (
                SELECT FROM %I m
                WHERE m.instance = $1 AND m.seq > $2
                    AND NOT EXISTS (
                        SELECT FROM published p
                        WHERE p.instance = m.instance AND p.block = m.seq / 4096
                            AND (m.seq %% 4096)::smallint = ANY (p.seqs))
                    AND NOT EXISTS (
                        SELECT FROM rejected_messages r WHERE r.message_ref = m.message_ref AND r.state <> 'waiting')
            )
            $check$, name) INTO is_unsettled USING log.instance_id, log.settled_to;
        IF is_unsettled THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION drop_outbox_partition(name text, kept_for interval) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(name) AND inhparent = 'outbox'::regclass) THEN
        RAISE EXCEPTION 'there is no such partition of outbox';
    END IF;
    IF partition_day(name) + interval '24 hours' + greatest(kept_for, interval '0') > now()
        -- A placement of unknown outcome may be repeated for a day.
        OR partition_day(name) + interval '48 hours' > now()
        -- Asked first while nobody waits: a log that is far behind is long.
        OR NOT is_settled_outbox_partition(name) THEN
        RETURN 'kept';
    END IF;
    SET LOCAL lock_timeout = '200ms';
    BEGIN
        EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', name);
    EXCEPTION WHEN lock_not_available THEN
        RETURN 'kept';
    END;
    IF NOT is_settled_outbox_partition(name) THEN
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

DO $$
BEGIN
    -- It runs with the owner's rights: nothing but this schema may lend it a name.
    EXECUTE format('ALTER FUNCTION drop_outbox_partition(text, interval) SET search_path = %I, pg_temp', current_schema());
END
$$;
