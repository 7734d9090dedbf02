-- How many wait, by reason, is asked with every scrape: read from this index alone.
CREATE INDEX quarantine_waiting_by_reason ON quarantine (reason) WHERE state = 'waiting';
