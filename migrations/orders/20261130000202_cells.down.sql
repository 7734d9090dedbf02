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
            'ce_source', '/order-service', 'ce_time', moment.text, 'content-type', 'application/json']
            || CASE WHEN traceparent IS NULL THEN '{}' ELSE ARRAY['traceparent', traceparent] END
            || CASE WHEN tracestate IS NULL THEN '{}' ELSE ARRAY['tracestate', tracestate] END
    FROM (SELECT to_char(activity_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS text) AS moment;
END;

DROP TABLE cell;
