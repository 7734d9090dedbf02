DROP TABLE processed_messages;
DROP TABLE daily_activities;
DROP TABLE business_calendar;
DROP TABLE activity_types;
