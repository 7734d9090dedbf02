DROP INDEX quarantine_with_value, quarantine_by_message, quarantine_corrected, quarantine_without_value, quarantine_by_topic, quarantine_by_type,
    quarantine_by_reason, quarantine_by_time;
ALTER TABLE quarantine
    DROP CONSTRAINT quarantine_corrected_is_counted,
    DROP CONSTRAINT quarantine_value_or_hash,
    DROP CONSTRAINT quarantine_reason_known,
    DROP COLUMN corrected_value,
    DROP COLUMN value_sha256,
    DROP COLUMN reason_code;
UPDATE quarantine SET reason = replace(reason, '_', ' ') WHERE reason LIKE '%\_%';
ALTER TABLE quarantine ADD CONSTRAINT quarantine_reason_known CHECK (reason IN (
    'no value', 'not json', 'bad field', 'unknown type', 'unknown version', 'bad date', 'too old', 'not storable',
    'conflicting copy'));
