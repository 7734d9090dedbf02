CREATE OR REPLACE FUNCTION make_key_partition(day date) RETURNS void
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

-- It runs with the owner's rights: nothing but this schema may lend it a name.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION make_key_partition SET search_path = %I, pg_temp', current_schema());
END
$$;
