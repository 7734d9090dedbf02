-- When a figure last grew. Of figures from before it is not known.
ALTER TABLE daily_activity_shards ADD COLUMN last_counted_at timestamptz;

CREATE OR REPLACE VIEW daily_activities AS
SELECT activity_date, activity_type_code, sum(quantity)::bigint AS quantity, max(last_counted_at) AS last_counted_at
FROM daily_activity_shards GROUP BY activity_date, activity_type_code;
