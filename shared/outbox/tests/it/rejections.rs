//! A refusal that is recorded again, because its answer was lost, counts once.

use std::time::Duration;

use outbox::{
    message::{Content, Message},
    tables::{AfterRejection, Rejected, record_rejections},
};
use shared::runtime::traces::TraceContext;
use sqlx::migrate::Migrator;
use testing::Database;
use time::OffsetDateTime;
use uuid::Uuid;

static OUTBOX: Migrator = sqlx::migrate!("./migrations");

/// Since the first time somebody has retried the message and sent it. It would be sent twice.
#[tokio::test]
async fn a_refusal_said_again_does_not_bring_back_a_message_that_others_have_sent() {
    let database = Database::new(&OUTBOX).await;
    database.execute("INSERT INTO instances (instance_id) VALUES (1), (2)").await;
    for (next, is_retry) in [(AfterRejection::Failed, false), (AfterRejection::WaitsForHolder(Duration::ZERO), true)] {
        let message = refused(next);
        let (record, message_ref) = (Uuid::now_v7(), message.message.message_ref);
        let mut connection = database.pool.acquire().await.unwrap();
        let known = format!("SELECT count(*) FROM rejected_messages WHERE message_ref = '{message_ref}'");
        let said = format!("SELECT count(*) FROM rejections WHERE message_ref = '{message_ref}'");
        let mut say = async |record| {
            record_rejections(&mut connection, 1.into(), record, std::slice::from_ref(&message), &[is_retry]).await
        };

        assert!(say(record).await.unwrap());
        assert_eq!((database.number(&known).await, database.number(&said).await), (1, 1), "{next:?}");

        // An operator wants it sent again, another instance holds it.
        let held = "UPDATE rejected_messages SET state = 'retrying', failures = 0, holder = 2 WHERE message_ref =";
        database.execute(&format!("{held} '{message_ref}'")).await;
        assert!(say(record).await.unwrap());
        let holder = format!("SELECT holder FROM rejected_messages WHERE message_ref = '{message_ref}'");
        assert_eq!(database.number(&holder).await, 2, "{next:?}: it is taken from whoever sends it");

        database.execute(&format!("DELETE FROM rejected_messages WHERE message_ref = '{message_ref}'")).await;
        assert!(say(record).await.unwrap());
        assert_eq!((database.number(&known).await, database.number(&said).await), (0, 1), "{next:?}");

        // The next refusal is another one, however often it had failed by then.
        assert!(say(Uuid::now_v7()).await.unwrap());
        assert_eq!((database.number(&known).await, database.number(&said).await), (1, 2), "{next:?}");
    }
}

fn refused(next: AfterRejection) -> Rejected {
    let message = Message {
        message_ref: Uuid::now_v7(),
        log: 1.into(),
        seq: 1,
        content: Content::Given { key: "one".to_owned(), fields: "{}".to_owned() },
        activity_type_code: "THING_MADE".to_owned(),
        activity_at: OffsetDateTime::now_utc(),
        format: 2,
        trace: TraceContext::default(),
        failures: 1,
    };
    Rejected { message, error: "refused".to_owned(), next }
}
