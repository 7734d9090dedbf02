CREATE OR REPLACE FUNCTION make_key_partition(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    name text := 'processed_messages_' || to_char(day, 'YYYYMMDD');
    revoke text;
BEGIN
    -- One at a time; others who want the same day find it made.
    LOCK TABLE processed_messages IN SHARE UPDATE EXCLUSIVE MODE;
    IF to_regclass(name) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE processed_messages INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
    EXECUTE format('ALTER TABLE processed_messages ATTACH PARTITION %I FOR VALUES FROM (false, %L) TO (false, %L)',
        name, key_day_begin(day), key_day_begin(day + 1));
    FOR revoke IN
        SELECT format('REVOKE INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON %I FROM %s CASCADE',
            relname, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
        FROM pg_class, aclexplode(relacl)
        WHERE pg_class.oid = to_regclass(name) AND grantee <> relowner
        GROUP BY relname, grantee
    LOOP
        EXECUTE revoke;
    END LOOP;
END
$$;

-- Removes an empty partition. This locks the whole table for a moment: false where that is not to be had, or
-- a key has come.
CREATE OR REPLACE FUNCTION drop_key_partition(day date) RETURNS boolean
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
    FOREACH name IN ARRAY ARRAY['make_key_partition', 'drop_key_partition'] LOOP
        EXECUTE format('ALTER FUNCTION %I(date) SET search_path = %I, pg_temp', name, current_schema());
    END LOOP;
END
$$;
