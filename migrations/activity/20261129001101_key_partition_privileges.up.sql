-- Keys come through the table, which lets the service add and read them. What default privileges give on a partition itself
-- would be a way past that: whoever deletes a key has its message counted twice.
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

-- It runs with the owner's rights: nothing but this schema may lend it a name.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION make_key_partition SET search_path = %I, pg_temp', current_schema());
END
$$;
