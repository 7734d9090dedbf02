DROP VIEW daily_activities;
CREATE VIEW daily_activities AS
SELECT activity_date, activity_type_code, sum(quantity)::bigint AS quantity
FROM daily_activity_shards GROUP BY activity_date, activity_type_code;

ALTER TABLE daily_activity_shards DROP COLUMN last_counted_at;
