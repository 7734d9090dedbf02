-- Which of the cells of its installation this database is of, one row, kept at the first start. Another setting later is
-- refused: order numbers of two cells would meet. An older order-service beside this schema does not look here, and draws
-- the numbers of one that is alone.
CREATE TABLE cell (
    number integer NOT NULL,
    -- How many there may ever be.
    count integer NOT NULL,
    -- When it was told first that there is this cell: before its first order. Nobody waits for that where it is alone.
    known_at timestamptz,
    is_only boolean NOT NULL DEFAULT true,
    CONSTRAINT cell_pkey PRIMARY KEY (is_only),
    CONSTRAINT cell_only CHECK (is_only),
    CONSTRAINT cell_number_in_range CHECK (number BETWEEN 1 AND count)
);

-- As order-service makes the bytes: the first cell has the source of one that is alone.
CREATE OR REPLACE FUNCTION announcement(
    message_ref uuid, activity_type_code text, activity_at timestamptz, order_id bigint, order_version integer,
    traceparent text, tracestate text
) RETURNS TABLE (key text, value text, headers text[])
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT
        order_ref(order_id),
        format('{"messageRef":"%s","activityTypeCode":"%s","activityAt":"%s","orderRef":"%s","orderVersion":%s}',
            message_ref, activity_type_code, moment.text, order_ref(order_id), order_version),
        ARRAY['ce_specversion', '1.0', 'ce_id', message_ref::text,
            'ce_type', 'summarisation.' || activity_type_code || '.v1',
            'ce_source', '/order-service' || coalesce((SELECT '/' || c.number FROM cell c WHERE c.number > 1), ''),
            'ce_time', moment.text, 'content-type', 'application/json']
            || CASE WHEN traceparent IS NULL THEN '{}' ELSE ARRAY['traceparent', traceparent] END
            || CASE WHEN tracestate IS NULL THEN '{}' ELSE ARRAY['tracestate', tracestate] END
    FROM (SELECT to_char(activity_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS text) AS moment;
END;
