ALTER TABLE instances DROP COLUMN takeover_after;
