//! Requests that rdkafka has no call for, in versions that every supported Kafka understands: rights and quotas of the
//! user `service` at the broker that asks for a password, and a record that no client of Rust can write.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::wait_until;

const PRODUCE: i16 = 0;
const CREATE_ACLS: i16 = 30;
const DESCRIBE_ACLS: i16 = 29;
const DELETE_ACLS: i16 = 31;
const ALTER_CLIENT_QUOTAS: i16 = 49;
const TOPIC: u8 = 2;
/// The name is the whole name.
const LITERAL: u8 = 3;
const DENY: u8 = 2;
const ALLOW: u8 = 3;
const ALL: u8 = 2;

#[derive(Clone, Copy, Debug)]
pub enum Right {
    Read = 3,
    Write = 4,
    DescribeConfigs = 10,
}

pub(crate) async fn take_away(brokers: &str, right: Right, topic: &str) {
    // A topic with any rule is closed to whom no rule names.
    let rules = [rule(topic, ALL, ALLOW), rule(topic, right as u8, DENY)];
    let answer = ask(brokers, (CREATE_ACLS, 1), &list(&rules)).await;
    // How long it was held back, how many results, and of each its error and a text.
    assert!(matches!(answer[..], [_, _, _, _, 0, 0, 0, 2, 0, 0, _, _, 0, 0, ..]), "{answer:?}");
    // The controller has them then, and the broker soon.
    wait_until("the rules are in force", Duration::from_secs(20), async || {
        let answer = ask(brokers, (DESCRIBE_ACLS, 1), &rule(topic, right as u8, DENY)).await;
        matches!(answer[..], [_, _, _, _, 0, 0, _, _, 0, 0, 0, 1, ..])
    })
    .await;
}

pub(crate) async fn give_back(brokers: &str, right: Right, topic: &str) {
    let answer = ask(brokers, (DELETE_ACLS, 1), &list(&[rule(topic, right as u8, DENY)])).await;
    assert!(matches!(answer[..], [_, _, _, _, 0, 0, 0, 1, 0, 0, ..]), "{answer:?}");
}

/// How many bytes a second may be read; none: as many as there are.
pub(crate) async fn limit_reading(brokers: &str, bytes: Option<f64>) {
    let user = list(&[[text("user"), text("service")].concat()]);
    let rate =
        [text("consumer_byte_rate"), bytes.unwrap_or_default().to_be_bytes().into(), vec![u8::from(bytes.is_none())]];
    let change = [user, list(&[rate.concat()])].concat();
    let and_do_it = [0];
    let answer = ask(brokers, (ALTER_CLIENT_QUOTAS, 0), &[&list(&[change])[..], &and_do_it].concat()).await;
    assert!(matches!(answer[..], [_, _, _, _, 0, 0, 0, 1, 0, 0, ..]), "{answer:?}");
}

/// Writes a message to partition 0, with a header whose name may be any bytes.
pub(crate) async fn produce(brokers: &str, topic: &str, value: &[u8], header: &[u8]) {
    const OF_ALL_REPLICAS: i16 = -1;
    const WITHIN: i32 = 30_000;
    let batch = batch(value, header);
    let length = i32::try_from(batch.len()).unwrap();
    let records = [&0_i32.to_be_bytes()[..], &length.to_be_bytes(), &batch].concat();
    let topics = list(&[[text(topic), list(&[records])].concat()]);
    let no_transaction = (-1_i16).to_be_bytes();
    let body = [&no_transaction[..], &OF_ALL_REPLICAS.to_be_bytes(), &WITHIN.to_be_bytes(), &topics].concat();
    let answer = ask(brokers, (PRODUCE, 7), &body).await;
    // One topic, its name, one partition, its number and its error.
    let at = 4 + 2 + topic.len() + 4 + 4;
    assert_eq!(answer[at..at + 2], [0, 0], "{answer:?}");
}

/// A batch of one record.
fn batch(value: &[u8], header: &[u8]) -> Vec<u8> {
    let now = i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap();
    let bytes = |bytes: &[u8]| [varint(bytes.len()), bytes.to_vec()].concat();
    let no_key = vec![1];
    let deltas_and_attributes = [0, 0, 0];
    let record =
        [&deltas_and_attributes[..], &no_key, &bytes(value), &varint(1), &bytes(header), &bytes(b"x")].concat();
    let [attributes, last, times, producer, epoch, sequence, count] = [
        vec![0; 2],
        vec![0; 4],
        [now, now].map(i64::to_be_bytes).concat(),
        vec![0xff; 8],
        vec![0xff; 2],
        vec![0xff; 4],
        1_i32.to_be_bytes().to_vec(),
    ];
    let checked = [attributes, last, times, producer, epoch, sequence, count, bytes(&record)].concat();
    let (no_leader, magic) = ([0xff; 4], [2]);
    let rest = [&no_leader[..], &magic, &crc32c(&checked).to_be_bytes(), &checked].concat();
    [&0_i64.to_be_bytes()[..], &i32::try_from(rest.len()).unwrap().to_be_bytes(), &rest].concat()
}

/// Of a number that is not negative: twice as much, by seven bits.
fn varint(number: usize) -> Vec<u8> {
    let (mut left, mut bytes) = (number * 2, Vec::new());
    while left > 0x7f {
        bytes.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
        left >>= 7;
    }
    bytes.push(u8::try_from(left).unwrap());
    bytes
}

fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 })
    })
}

/// A rule, and a filter that finds it, are the same bytes.
fn rule(topic: &str, operation: u8, permission: u8) -> Vec<u8> {
    [&[TOPIC][..], &text(topic), &[LITERAL], &text("User:service"), &text("*"), &[operation, permission]].concat()
}

fn text(value: &str) -> Vec<u8> {
    [&i16::try_from(value.len()).unwrap().to_be_bytes(), value.as_bytes()].concat()
}

fn list(entries: &[Vec<u8>]) -> Vec<u8> {
    [&i32::try_from(entries.len()).unwrap().to_be_bytes(), &entries.concat()[..]].concat()
}

async fn ask(brokers: &str, (request, version): (i16, i16), body: &[u8]) -> Vec<u8> {
    const CORRELATION: i32 = 1;
    let mut bytes = [request.to_be_bytes(), version.to_be_bytes()].concat();
    bytes.extend(CORRELATION.to_be_bytes());
    bytes.extend(text("requests"));
    bytes.extend(body);
    let asked = async {
        let mut broker = TcpStream::connect(brokers).await?;
        broker.write_all(&i32::try_from(bytes.len()).unwrap().to_be_bytes()).await?;
        broker.write_all(&bytes).await?;
        let mut answer = vec![0; usize::try_from(broker.read_i32().await?).unwrap()];
        broker.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer.split_off(size_of_val(&CORRELATION)))
    };
    timeout(Duration::from_secs(30), asked).await.expect("the broker answers").unwrap()
}
