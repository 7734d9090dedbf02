//! Rights and quotas of the user `service` at the broker that asks for a password, changed while a service uses it.
//! rdkafka has no call for them: the requests are written here, in versions that every supported Kafka understands.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const CREATE_ACLS: i16 = 30;
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
}

pub(crate) async fn take_away(brokers: &str, right: Right, topic: &str) {
    // A topic with any rule is closed to whom no rule names.
    let rules = [rule(topic, ALL, ALLOW), rule(topic, right as u8, DENY)];
    let answer = ask(brokers, (CREATE_ACLS, 1), &list(&rules)).await;
    // How long it was held back, how many results, and of each its error and a text.
    assert!(matches!(answer[..], [_, _, _, _, 0, 0, 0, 2, 0, 0, _, _, 0, 0, ..]), "{answer:?}");
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
    bytes.extend(text("broker rules"));
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
