//! A refusal that is recorded again, because its answer was lost, counts once.

use std::{collections::BTreeSet, time::Duration};

use outbox::{
    message::{Content, Message},
    tables::{AfterRejection, Rejected, read_places, record_rejections},
};
use shared::runtime::traces::TraceContext;
use sqlx::migrate::Migrator;
use testing::Database;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::pools::settings_of;

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

/// Holds: A message that has left its log is not sent from there, though nobody has heard that it left.
#[tokio::test]
async fn a_message_that_has_left_its_log_is_not_read_from_there() {
    let database = Database::new(&OUTBOX).await;
    let pool = settings_of(&database).pool("reader").unwrap();
    database.execute("INSERT INTO instances (instance_id) VALUES (1)").await;
    let states = ["waiting", "failed", "retrying", "discarded", ""];
    for (seq, state) in (0..).zip(states) {
        let (message_ref, discarded) = (Uuid::now_v7(), if state == "discarded" { "now()" } else { "NULL" });
        let columns =
            "message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at, format, key, fields";
        let values = format!("'{message_ref}', 1, {seq}, 0, 0, 'THING_MADE', now(), 2, 'k', '{{}}'");
        database.execute(&format!("INSERT INTO outbox ({columns}) VALUES ({values})")).await;
        if !state.is_empty() {
            let by = if state == "discarded" { "'x'" } else { "NULL" };
            let refused = format!(
                "INSERT INTO rejected_messages ({columns}, failures, state, discarded_at, discarded_by, discard_reason)
                 VALUES ({values}, 1, '{state}', {discarded}, {by}, {by})"
            );
            database.execute(&refused).await;
        }
    }
    let (messages, left) = read_places(&pool, 1.into(), &[0, 1, 2, 3, 4, 5]).await.unwrap();
    let mut seqs: Vec<_> = messages.iter().map(|message| message.seq).collect();
    seqs.sort_unstable();
    assert_eq!((seqs, left.into_iter().collect::<BTreeSet<_>>()), (vec![0, 4], [1, 2, 3].into()));
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
