//! Messages as order-service writes them, in any number.

use std::time::Duration;

use anyhow::{Context, Result};
use order_service::order::OrderRef;
use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer, ThreadedProducer},
};
use testing::Topic;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{task::spawn_blocking, time::sleep};
use uuid::{NoContext, Timestamp, Uuid};

const TYPES: [&str; 3] = ["ORDER_CREATED", "ORDER_COMPLETED", "ORDER_CANCELLED"];
/// Days before today that activities are spread over.
const DAYS: i64 = 7;

/// Writes `count` messages of every type, referred to as of now, of several days. Whoever reads them checks that none
/// is missing.
pub async fn produce(topic: &Topic, count: usize) -> Result<()> {
    let now = OffsetDateTime::now_utc();
    let dated = |number| {
        let at = now - time::Duration::days(number % DAYS) - time::Duration::microseconds(number);
        (Uuid::now_v7(), at)
    };
    produce_dated(topic, count, dated).await
}

/// As [`produce`], one after the other over so many days until now, references and all.
pub async fn produce_over(days: u32, topic: &Topic, count: usize) -> Result<()> {
    let (now, all) = (OffsetDateTime::now_utc(), time::Duration::days(i64::from(days)));
    let dated = |number| {
        let at = now - all + all * (number as f64 / count as f64);
        let seconds = at.unix_timestamp().unsigned_abs();
        (Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, at.nanosecond())), at)
    };
    produce_dated(topic, count, dated).await
}

async fn produce_dated(topic: &Topic, count: usize, dated: impl Fn(i64) -> (Uuid, OffsetDateTime)) -> Result<()> {
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", &topic.brokers)
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .create()
        .context("a producer")?;
    for (number, code) in (1..).zip(TYPES.iter().cycle().take(count)) {
        let (message_ref, at) = dated(number);
        let message_ref = message_ref.to_string();
        let at = at.format(&Rfc3339).context("the clock")?;
        let order_ref = OrderRef::from_number(number).to_string();
        let value = format!(
            r#"{{"messageRef":"{message_ref}","activityTypeCode":"{code}","activityAt":"{at}","orderRef":"{order_ref}","orderVersion":1}}"#
        );
        let ce_type = format!("summarisation.{code}.v1");
        let headers = [
            ("ce_specversion", "1.0"),
            ("ce_id", &message_ref),
            ("ce_type", &ce_type),
            ("ce_source", "/order-service"),
            ("ce_time", &at),
            ("content-type", "application/json"),
        ];
        let headers = headers.into_iter().fold(OwnedHeaders::new_with_capacity(headers.len()), |all, (key, value)| {
            all.insert(Header { key, value: Some(value) })
        });
        let mut record = BaseRecord::to(&topic.name).key(&order_ref).payload(&value).headers(headers);
        while let Err((error, refused)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error).context("a message is refused");
            }
            record = refused;
            sleep(Duration::from_millis(5)).await;
        }
    }
    let flushed = spawn_blocking(move || producer.flush(Duration::from_secs(60))).await;
    flushed.context("flushing")?.context("the messages are not all written")
}
