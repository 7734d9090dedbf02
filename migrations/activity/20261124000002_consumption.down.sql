DROP TABLE consumer_positions;
DROP TABLE quarantine;
