DROP TABLE told_counts;
DROP TABLE message_counts;
DROP TABLE counted_logs;
