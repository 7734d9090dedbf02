ALTER TABLE rejections DROP COLUMN record;
