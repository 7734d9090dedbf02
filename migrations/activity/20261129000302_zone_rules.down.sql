ALTER TABLE business_calendar DROP COLUMN rules;
