-- Old orders leave, where retention.orders is set. The service's role deletes no order: a function of the owner does, and
-- lets go only what is final, old, and has no message left, whoever asks. An older order-service never asks.

-- Looks at so many orders behind a place, oldest first, and removes those that may go: how many, and the last place it has
-- looked at, none where there is nothing more. An order keeps its row while a message of it is in the outbox or was refused:
-- what is shown and sent of a message is made of the order's number, and counted from the outbox before it leaves.
CREATE FUNCTION purge_orders(
    older_than interval, after_placed_at timestamptz, after_order_id bigint, most integer,
    OUT removed bigint, OUT last_placed_at timestamptz, OUT last_order_id bigint
)
LANGUAGE plpgsql SECURITY DEFINER
-- A page is in one place, which a plan for any place does not know.
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    final bigint[];
    lowest bigint;
    highest bigint;
BEGIN
    IF older_than < interval '1 day' OR most NOT BETWEEN 1 AND 100000 THEN
        RAISE EXCEPTION 'orders leave when they are older than a day, at most 100000 at once';
    END IF;
    removed := 0;
    -- One instance at a time: whoever comes meanwhile passes by.
    IF NOT pg_try_advisory_xact_lock('orders'::regclass::oid::bigint) THEN
        RETURN;
    END IF;
    SELECT array_agg(order_id) FILTER (WHERE status IN ('Fulfilled', 'Cancelled')), min(order_id), max(order_id),
        (array_agg(placed_at ORDER BY placed_at DESC, order_id DESC))[1],
        (array_agg(order_id ORDER BY placed_at DESC, order_id DESC))[1]
    INTO final, lowest, highest, last_placed_at, last_order_id
    FROM (
        SELECT order_id, status, placed_at FROM orders
        WHERE (placed_at, order_id) > (after_placed_at, after_order_id) AND placed_at < now() - older_than
        ORDER BY placed_at, order_id LIMIT most
    ) looked;
    -- Asked for all of them at once: an index of ranges costs as much for one order as for those beside it.
    DELETE FROM orders WHERE order_id = ANY (ARRAY(
        SELECT order_id FROM orders
        WHERE order_id = ANY (final) AND order_id NOT IN (
            SELECT order_id FROM outbox WHERE order_version = 1 AND order_id BETWEEN lowest AND highest
            UNION ALL
            SELECT order_id FROM outbox WHERE order_version > 1 AND order_id BETWEEN lowest AND highest
            UNION ALL
            SELECT order_id FROM rejected_messages WHERE order_id BETWEEN lowest AND highest
        )
        -- One that is being forgotten goes the next time.
        FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS removed = ROW_COUNT;
END
$$;

DO $$
BEGIN
    -- It runs with the owner's rights: nothing but this schema may lend it a name. For the role of the service alone.
    EXECUTE format('ALTER FUNCTION purge_orders SET search_path = %I, pg_temp', current_schema());
    REVOKE EXECUTE ON FUNCTION purge_orders FROM PUBLIC;
END
$$;
