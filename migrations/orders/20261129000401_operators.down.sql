-- A message that was discarded waits for an operator again.
DROP VIEW outbox_messages;
CREATE VIEW outbox_messages AS
WITH messages AS (
    SELECT m.*, r.state AS rejection, r.failures, r.last_error
    FROM outbox m LEFT JOIN rejected_messages r USING (message_ref)
    UNION ALL
    SELECT message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at, format,
        traceparent, tracestate, r.state, r.failures, r.last_error
    FROM rejected_messages r
    WHERE NOT EXISTS (SELECT FROM outbox m WHERE m.message_ref = r.message_ref)
)
SELECT
    m.message_ref,
    m.order_id,
    a.key AS order_ref,
    m.activity_type_code,
    m.order_version,
    m.activity_at,
    CASE
        WHEN m.rejection = 'failed' THEN 'failed'
        WHEN m.rejection IS NULL AND p.published_at IS NOT NULL THEN 'published'
        ELSE 'unpublished'
    END AS state,
    coalesce(m.failures, 0) AS failures,
    m.last_error,
    m.instance,
    m.seq,
    CASE WHEN m.rejection IS NULL THEN p.published_at END AS published_at,
    CASE WHEN m.rejection IS NULL THEN p.partition END AS partition,
    CASE WHEN m.rejection IS NULL THEN p."offset" END AS "offset",
    a.key,
    a.value,
    a.headers
FROM messages m
CROSS JOIN LATERAL announcement(
    m.message_ref, m.activity_type_code, m.activity_at, m.order_id, m.order_version, m.traceparent, m.tracestate) a
LEFT JOIN LATERAL (
    SELECT p.published_at, p.partitions[n.place] AS partition, p.offsets[n.place] AS "offset"
    FROM published p CROSS JOIN LATERAL array_position(p.seqs, (m.seq % 4096)::smallint) AS n (place)
    WHERE p.instance = m.instance AND p.block = m.seq / 4096 AND n.place IS NOT NULL
    ORDER BY p.published_at DESC LIMIT 1
) p ON true;

DROP FUNCTION messages_of_order;
DROP INDEX outbox_placements, outbox_changes, rejected_messages_order, rejected_messages_discarded;
ALTER TABLE rejected_messages DROP CONSTRAINT rejected_messages_discarded;
UPDATE rejected_messages SET state = 'failed' WHERE state = 'discarded';
ALTER TABLE rejected_messages
    DROP COLUMN discarded_at,
    DROP COLUMN discarded_by,
    DROP COLUMN discard_reason,
    DROP CONSTRAINT rejected_messages_state_known,
    ADD CONSTRAINT rejected_messages_state_known CHECK (state IN ('waiting', 'failed', 'retrying'));
DROP TABLE rejections;
DROP TABLE audit;
