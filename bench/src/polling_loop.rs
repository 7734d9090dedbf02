//! The plain polling loop that order-service is measured against: select, produce, flush, update,
//! commit, one after the other.

use std::{
    sync::mpsc::{self, Receiver, Sender},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rdkafka::{
    ClientConfig, ClientContext, Message,
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer},
};
use testing::{Database, Topic};
use uuid::Uuid;

use crate::topic::Place;

const WITHIN: Duration = Duration::from_secs(30);

struct Deliveries(Sender<Result<Place, KafkaError>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Uuid>;

    fn delivery(&self, delivered: &DeliveryResult<'_>, message_ref: Self::DeliveryOpaque) {
        let place = match delivered {
            Ok(message) => Ok((*message_ref, message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        // Closed only when the loop has given up.
        drop(self.0.send(place));
    }
}

/// Publishes and marks everything; returns how long it took from the first batch.
pub async fn drain(database: &Database, topic: &Topic) -> Result<Duration> {
    let (sender, deliveries) = mpsc::channel();
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", &topic.brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        // The loop waits for the answers to all it has sent: lingering would only add to that.
        .set("linger.ms", "0")
        .create_with_context(Deliveries(sender))
        .context("a producer")?;
    let begin = Instant::now();
    while publish_batch(database, topic, &producer, &deliveries).await? > 0 {}
    Ok(begin.elapsed())
}

async fn publish_batch(
    database: &Database,
    topic: &Topic,
    producer: &ThreadedProducer<Deliveries>,
    deliveries: &Receiver<Result<Place, KafkaError>>,
) -> Result<usize> {
    let mut transaction = database.pool.begin().await?;
    let rows: Vec<(Uuid, String, String, Vec<String>)> = sqlx::query_as(
        "SELECT message_ref, key, value, headers FROM polled WHERE state = 'unpublished'
         ORDER BY message_ref LIMIT 1000 FOR UPDATE SKIP LOCKED",
    )
    .fetch_all(&mut *transaction)
    .await?;
    for (message_ref, key, value, headers) in &rows {
        let pairs = headers.chunks_exact(2);
        let headers =
            pairs.fold(OwnedHeaders::new(), |all, pair| all.insert(Header { key: &pair[0], value: Some(&pair[1]) }));
        let record = BaseRecord::with_opaque_to(&topic.name, Box::new(*message_ref));
        let record = record.key(key.as_str()).payload(value.as_str()).headers(headers);
        producer.send(record).map_err(|(error, _)| error).context("a message is refused")?;
    }
    // The flush. rdkafka's own looks only every 100 ms whether it has come to its end.
    let (mut refs, mut partitions, mut offsets) = (Vec::new(), Vec::new(), Vec::new());
    for _ in &rows {
        let (message_ref, partition, offset) = deliveries.recv_timeout(WITHIN)??;
        refs.push(message_ref);
        partitions.push(partition);
        offsets.push(offset);
    }
    sqlx::query(
        r#"UPDATE polled o SET state = 'published', published_at = now(), partition = d.partition, "offset" = d."offset"
           FROM UNNEST($1::uuid[], $2::integer[], $3::bigint[]) AS d (message_ref, partition, "offset")
           WHERE o.message_ref = d.message_ref"#,
    )
    .bind(refs)
    .bind(partitions)
    .bind(offsets)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(rows.len())
}
