-- pgbench: an order of two items, its message and no key by the placement statement of commit c7d43a1, one order a
-- statement. A reference is made of two numbers with 16 digits, the first of which grows, as the time in a UUIDv7 does.
\set moment :moment + 1
\set random random(1000000000000000, 9999999999999999)
\set customer random(0, 999)
WITH incoming AS (
    SELECT nextval('order_number') AS order_id, o.*
    FROM UNNEST(ARRAY[(:moment::text || :random::text)::uuid]::uuid[], ARRAY['C-' || :customer::text]::text[], ARRAY[1::bigint]::bigint[], ARRAY[NULL::text]::text[], ARRAY[NULL::text]::text[])
        WITH ORDINALITY AS o (message_ref, customer_ref, owner, traceparent, tracestate, place)
),
lines AS (
    SELECT * FROM UNNEST(ARRAY[1, 1]::integer[], ARRAY[1, 2]::smallint[], ARRAY[(:random::text || :random::text)::uuid, (:random::text || :moment::text)::uuid]::uuid[], ARRAY[1, 2]::integer[])
        AS l (place, line_number, product_id, quantity)
),
keyed AS (
    SELECT * FROM UNNEST(ARRAY[]::integer[]::integer[], ARRAY[]::bytea[]::bytea[], ARRAY[]::bytea[]::bytea[], ARRAY[]::bigint[]::bigint[])
        AS k (place, caller_key, fingerprint, lock)
),
taken AS (
    INSERT INTO idempotency_keys AS k (caller_key, fingerprint, order_id, placed_at)
    SELECT caller_key, fingerprint, order_id, now() FROM keyed JOIN incoming USING (place)
    WHERE pg_try_advisory_xact_lock(lock)
    ON CONFLICT (caller_key) DO UPDATE
        SET fingerprint = excluded.fingerprint, order_id = excluded.order_id, placed_at = excluded.placed_at
        WHERE k.placed_at <= now() - make_interval(secs => 604800)
    RETURNING order_id
),
announced AS (
    INSERT INTO outbox (message_ref, order_id, activity_type_code, placed_at, owner, key, value, headers)
    SELECT message_ref, order_id, 'ORDER_CREATED', now(), owner, a.key, a.value, a.headers
    FROM incoming, announcement(message_ref, 'ORDER_CREATED', now(), order_id, 1, traceparent, tracestate) AS a
    WHERE place NOT IN (SELECT place FROM keyed) OR order_id IN (SELECT order_id FROM taken)
    ON CONFLICT (message_ref) DO NOTHING
    RETURNING message_ref, order_id, placed_at, owner, key, value, headers
),
ordered AS (
    INSERT INTO orders (order_id, customer_ref, number_of_items, placed_at)
    SELECT a.order_id, i.customer_ref, (SELECT count(*) FROM lines l WHERE l.place = i.place), a.placed_at
    FROM announced a JOIN incoming i USING (message_ref)
),
itemised AS (
    INSERT INTO order_items (order_id, line_number, product_id, quantity)
    SELECT a.order_id, l.line_number, l.product_id, l.quantity
    FROM announced a JOIN incoming i USING (message_ref) JOIN lines l USING (place)
)
SELECT message_ref, order_id, placed_at, owner, key, value, headers FROM announced;
