-- Instances that count at the same time never wait for one another: each transaction adds to the rows of a
-- shard that it has to itself, by an advisory lock. The figure is the sum. There are 16 shards and no more, so
-- nothing has to be folded: who counts alone always has the same one, and a day then has one row of each type.
ALTER TABLE daily_activities RENAME TO daily_activities_before;

CREATE TABLE daily_activity_shards (
    activity_date date NOT NULL,
    activity_type_code text NOT NULL,
    shard smallint NOT NULL,
    quantity bigint NOT NULL,
    CONSTRAINT daily_activity_shards_pkey PRIMARY KEY (activity_date, activity_type_code, shard),
    CONSTRAINT daily_activity_shards_type_fkey FOREIGN KEY (activity_type_code) REFERENCES activity_types (activity_type_code),
    CONSTRAINT daily_activity_shards_shard CHECK (shard BETWEEN 0 AND 15),
    CONSTRAINT daily_activity_shards_quantity_positive CHECK (quantity > 0)
)
-- Few rows, each updated with every batch: room for the new version beside the old one.
WITH (fillfactor = 10);

INSERT INTO daily_activity_shards (activity_date, activity_type_code, shard, quantity)
SELECT activity_date, activity_type_code, 0, quantity FROM daily_activities_before;

DROP TABLE daily_activities_before;

CREATE VIEW daily_activities AS
SELECT activity_date, activity_type_code, sum(quantity)::bigint AS quantity
FROM daily_activity_shards GROUP BY activity_date, activity_type_code;
