DROP TABLE hourly_activity_shards;
