-- The rules of the zone, as this database had them when they were looked at first or accepted by a rename: from when on
-- which offset holds, as `seconds since 1970:seconds east of UTC`, separated by commas, from 2000 to 2037. A new version
-- of the database's time zone data may have others, and from then on days are counted by those.
ALTER TABLE business_calendar ADD COLUMN rules text;
