-- How long the process behind an identity may be gone before it is taken over, as its own settings say: for half of it that
-- process trusts its lock. Whoever has a shorter setting waits for this one. Null where a version before did not say.
-- Nobody waits behind this for longer.
SET LOCAL lock_timeout = '2s';
ALTER TABLE instances ADD COLUMN takeover_after interval;
