DROP TABLE complete_days;
DROP TABLE source_minutes;
DROP TABLE sources;
