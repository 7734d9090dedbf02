-- Nothing was written before this minute. Null where that is not known: of a database that was in use before. A reader who
-- knows it expects no minutes of a time before.
ALTER TABLE told_counts ADD COLUMN since timestamptz;
