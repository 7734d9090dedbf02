DROP TABLE consumption_gaps;
ALTER TABLE consumer_positions
    DROP COLUMN seen_digest,
    DROP COLUMN seen_offset,
    DROP COLUMN last_digest,
    DROP COLUMN last_offset,
    DROP COLUMN generation;
