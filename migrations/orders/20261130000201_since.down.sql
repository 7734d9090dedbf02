ALTER TABLE told_counts DROP COLUMN since;
