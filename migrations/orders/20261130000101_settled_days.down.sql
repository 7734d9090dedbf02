CREATE OR REPLACE FUNCTION drop_outbox_partition(name text, kept_for interval) RETURNS text
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

DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION drop_outbox_partition(text, interval) SET search_path = %I, pg_temp', current_schema());
END
$$;

DROP FUNCTION is_settled_outbox_partition(text);
