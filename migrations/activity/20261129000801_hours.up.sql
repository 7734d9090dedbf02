-- Figures by hour of UTC, added to by the transaction that adds to the day's. What was counted before, and what a
-- program from before counts, has no hours. A type needs no foreign key: the figure of the day has it.
CREATE TABLE hourly_activity_shards (
    hour timestamptz NOT NULL,
    activity_type_code text NOT NULL,
    shard smallint NOT NULL,
    quantity bigint NOT NULL,
    CONSTRAINT hourly_activity_shards_pkey PRIMARY KEY (hour, activity_type_code, shard),
    CONSTRAINT hourly_activity_shards_shard CHECK (shard BETWEEN 0 AND 15),
    CONSTRAINT hourly_activity_shards_quantity_positive CHECK (quantity > 0)
)
-- As with days: few rows, each updated with every batch.
WITH (fillfactor = 10);
