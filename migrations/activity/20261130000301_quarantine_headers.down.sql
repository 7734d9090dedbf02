ALTER TABLE quarantine DROP COLUMN headers;
