-- Whether a partition is still the one that was read is told by records: one that was counted has to stand
-- where it stood, with its timestamp. The id that Kafka gives a topic would tell it too, but not that a topic was
-- cut short by a broker that became leader without having all of it.
ALTER TABLE consumer_positions
    -- Grows when the partition turns out to be another one. What was read before that moves no position.
    ADD COLUMN generation bigint NOT NULL DEFAULT 0,
    -- The record that was counted last, and its SHA-256. A program of before leaves them as they are, so they
    -- have an offset of their own.
    ADD COLUMN last_offset bigint,
    ADD COLUMN last_digest bytea,
    -- A record that was counted before the topic was last seen to be the same one, and its SHA-256. It stays
    -- behind the position: only what was counted before a look can show at that look that nothing has changed.
    ADD COLUMN seen_offset bigint,
    ADD COLUMN seen_digest bytea,
    ADD CONSTRAINT consumer_positions_last CHECK (num_nonnulls(last_offset, last_digest) IN (0, 2)),
    ADD CONSTRAINT consumer_positions_seen CHECK (num_nonnulls(seen_offset, seen_digest) IN (0, 2));

-- Offsets that were passed without a message. The row is written by the transaction that passes them.
CREATE TABLE consumption_gaps (
    gap_id bigint GENERATED ALWAYS AS IDENTITY,
    topic text NOT NULL,
    partition integer NOT NULL,
    -- The first offset that is missing, and the first one behind the gap.
    from_offset bigint NOT NULL,
    to_offset bigint NOT NULL,
    found_at timestamptz NOT NULL DEFAULT now(),
    -- `unchecked` until it is known how much of it the topic has deleted: where nothing was, there may never
    -- have been a message, for transactions and compaction leave holes. Then the row goes.
    state text NOT NULL DEFAULT 'unchecked',
    -- What ended it: when, who did it, and why.
    closed_at timestamptz,
    closed_by text,
    reason text,
    CONSTRAINT consumption_gaps_pkey PRIMARY KEY (gap_id),
    CONSTRAINT consumption_gaps_not_empty CHECK (from_offset < to_offset),
    CONSTRAINT consumption_gaps_state_known CHECK (state IN ('unchecked', 'open', 'closed')),
    CONSTRAINT consumption_gaps_audited CHECK (
        num_nonnulls(closed_at, closed_by, reason) = CASE state WHEN 'closed' THEN 3 ELSE 0 END)
);

-- Two members that have the same messages in hand after a rebalance find the same gap.
CREATE UNIQUE INDEX consumption_gaps_once ON consumption_gaps (topic, partition, from_offset) WHERE state <> 'closed';
