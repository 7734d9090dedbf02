//! Order-service's outbox, as a test asks for it again and again.

/// What the view `outbox_messages` calls unpublished, to be selected from: `message_ref`, `instance`. The view reads
/// every message there is; this one only what is not settled, so that a test which waits does not load the database.
/// The checker reads the view.
pub const UNPUBLISHED: &str = "(
    SELECT m.message_ref, m.instance
    FROM instances i CROSS JOIN LATERAL (
        SELECT message_ref, instance, seq FROM outbox
        WHERE instance = i.instance_id AND seq > settled_to(i.instance_id)
        OFFSET 0
    ) m
    WHERE NOT EXISTS (
            SELECT FROM published p
            WHERE p.instance = m.instance AND p.block = m.seq / 4096 AND (m.seq % 4096)::smallint = ANY (p.seqs)
            OFFSET 0)
        AND NOT EXISTS (SELECT FROM rejected_messages r WHERE r.message_ref = m.message_ref)
    UNION ALL
    SELECT message_ref, instance FROM rejected_messages WHERE state NOT IN ('failed', 'discarded')
)";
