ALTER TABLE consumer_positions DROP COLUMN told_end;
ALTER TABLE sources DROP COLUMN ends, DROP COLUMN ends_to, DROP COLUMN tried_again;
