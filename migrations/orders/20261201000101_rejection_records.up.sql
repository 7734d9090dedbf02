-- By what a record of refusals is known when it is said again after an answer that was lost. Null of those that a version
-- before this one wrote: they were told apart by their count of failures alone.
ALTER TABLE rejections ADD COLUMN record uuid;
