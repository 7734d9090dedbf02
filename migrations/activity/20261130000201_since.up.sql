-- Before this minute the source wrote nothing, as it says: no minutes of a time before are expected of it. Null where it
-- says nothing of that.
ALTER TABLE sources ADD COLUMN since timestamptz;
