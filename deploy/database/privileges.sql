-- Two roles for each database: the owner, who migrates, and the service, which reads and writes rows and
-- cannot change the schema. The roles are there already; run this as a superuser, before the first
-- migration and once more after it. It can be repeated.
--
--     psql -d orders -v owner=orders_owner -v service=order_service -f deploy/database/privileges.sql
--
-- The services need nothing else: pg_locks and advisory locks are everybody's, and so are functions, but for those of
-- large objects, which nobody needs here and which would fill the disk unseen. Those that
-- run with the rights of their owner, and make, empty and drop days of messages and keys, are the service's alone after the
-- second run: it changes the schema by nothing else.

-- It is about one schema: the first of search_path, which is public where nobody says otherwise. For a second installation
-- in the same database:
--
--     PGOPTIONS='-c search_path=two' psql -d orders -v owner=two_owner -v service=two_service -f deploy/database/privileges.sql

-- A variable of psql does not reach into a block, a setting does.
SELECT set_config('privileges.owner', :'owner', false), set_config('privileges.service', :'service', false);
DO $$
DECLARE
    owner text := current_setting('privileges.owner');
    service text := current_setting('privileges.service');
    own text := current_schema();
BEGIN
    IF own IS NULL THEN
        RAISE EXCEPTION 'no schema of search_path is there: make it first';
    END IF;
    -- The database is that of its first installation.
    IF own = 'public' THEN
        EXECUTE format('ALTER DATABASE %I OWNER TO %I', current_database(), owner);
    END IF;
    EXECUTE format('ALTER SCHEMA %I OWNER TO %I', own, owner);

    -- Everybody else, and what every role would have as a member of PUBLIC.
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', own);

    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I, %I', current_database(), owner, service);
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', own, service);

    -- What is there, and what migrations still to come will make. Neither TRUNCATE nor REFERENCES nor TRIGGER.
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %I TO %I', own, service);
    EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA %I TO %I', own, service);
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO %I',
        owner, own, service);
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT USAGE ON SEQUENCES TO %I', owner, own, service);
END
$$;

-- What the services never do is not permitted, either: the record of the migrations is only read; the audit only
-- grows; a message and its acknowledgement are never changed, nor the lines of an order; its customer is, by a
-- pseudonym; a key that was counted is never changed, and nothing is deleted but from tables that are purged. Of a message
-- that the broker refused, or that is in quarantine, the bytes are never changed: only what became of it. The first
-- migration makes the tables, hence the second run.
DO $$
DECLARE
    service text := current_setting('privileges.service');
    own text := current_schema();
    one record;
BEGIN
    FOR one IN SELECT * FROM (VALUES
        ('_sqlx_migrations', 'INSERT, UPDATE, DELETE'),
        ('audit', 'UPDATE, DELETE'),
        -- of orders
        ('announced', 'UPDATE'),
        ('cell', 'DELETE'),
        ('log_progress', 'UPDATE'),
        ('orders', 'DELETE'),
        ('outbox', 'UPDATE, DELETE'),
        ('outbox_messages', 'INSERT, UPDATE, DELETE'),
        ('published', 'UPDATE, DELETE'),
        ('rejections', 'UPDATE'),
        ('told_counts', 'INSERT, DELETE'),
        -- of activity
        ('activity_types', 'DELETE'),
        ('business_calendar', 'DELETE'),
        ('complete_days', 'UPDATE, DELETE'),
        ('consumer_positions', 'DELETE'),
        ('daily_activities', 'INSERT, UPDATE, DELETE'),
        ('daily_activity_shards', 'DELETE'),
        ('differing_minutes', 'INSERT, UPDATE, DELETE'),
        ('hourly_activity_shards', 'DELETE'),
        ('key_day_ends', 'UPDATE'),
        ('key_days', 'INSERT, UPDATE, DELETE'),
        ('key_horizon', 'INSERT, DELETE'),
        ('processed_messages', 'UPDATE, DELETE'),
        ('sources', 'DELETE')) AS never (name, done)
    LOOP
        IF to_regclass(format('%I.%I', own, one.name)) IS NOT NULL THEN
            EXECUTE format('REVOKE %s ON %I.%I FROM %I', one.done, own, one.name, service);
        END IF;
    END LOOP;
    -- Nor by a way past these: what was granted above on each partition itself.
    FOR one IN
        SELECT relname AS name FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent IN (
            SELECT to_regclass(format('%I.%I', own, parent))
            FROM unnest(ARRAY['outbox', 'published', 'processed_messages']) AS parent)
    LOOP
        EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON %I.%I FROM %I', own, one.name, service);
    END LOOP;
    IF to_regclass(format('%I.processed_messages_undated', own)) IS NOT NULL THEN
        -- Keys without a day go one by one; others with their day, by a function.
        EXECUTE format('GRANT DELETE ON %I.processed_messages_undated TO %I', own, service);
    END IF;
    FOR one IN
        SELECT oid::regprocedure AS name FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '^(lo_.*|loread|lowrite)$'
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', one.name);
    END LOOP;
    -- Of these some columns are changed, and no others. A schema of before may lack one.
    FOR one IN
        SELECT changed.name, string_agg(quote_ident(attname), ', ') AS columns
        FROM (VALUES
            ('orders', ARRAY['status', 'version', 'customer_ref']),
            ('rejected_messages', ARRAY['state', 'failures', 'last_error', 'rejected_at', 'retry_at', 'holder',
                'discarded_at', 'discarded_by', 'discard_reason']),
            ('consumption_gaps', ARRAY['state', 'to_offset', 'closed_at', 'closed_by', 'reason']),
            ('quarantine', ARRAY['identity', 'state', 'reason', 'detail', 'activity_type_code', 'message_ref',
                'corrected_value', 'resolved_at', 'resolved_by', 'resolution'])) AS changed (name, columns)
        JOIN pg_attribute ON attrelid = to_regclass(format('%I.%I', own, changed.name)) AND attname = ANY (changed.columns)
        GROUP BY changed.name
    LOOP
        EXECUTE format('REVOKE UPDATE ON %I.%I FROM %I', own, one.name, service);
        EXECUTE format('GRANT UPDATE (%s) ON %I.%I TO %I', one.columns, own, one.name, service);
    END LOOP;
    -- What runs with the rights of the owner; one of them is only for another of them.
    FOR one IN
        SELECT oid::regprocedure AS name, proname <> 'make_partition' AS is_asked_for FROM pg_proc
        WHERE pronamespace = to_regnamespace(quote_ident(own)) AND prosecdef
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', one.name);
        IF one.is_asked_for THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', one.name, service);
        END IF;
    END LOOP;
END
$$;
