-- The headers of a message in quarantine, for whoever looks for its sender: a JSON list of {"name", "valueBase64"}. Null in
-- rows of before.
ALTER TABLE quarantine ADD COLUMN headers text;
