//! How either service reaches Kafka.

mod renewal;
pub mod topics;

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    net::Ipv6Addr,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext,
    client::Client,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, Headers},
    types::RDKafkaType,
};

pub use self::renewal::{Credentials, Renewed};
use crate::runtime::{
    config::{Reader, Source, is_secret_property, is_this_machine},
    telemetry::{LIBRDKAFKA, none_if_it_panics},
};

/// How long a question to the cluster (metadata, offsets, a new topic) may take.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Properties of librdkafka on which promises rest, each with what would break.
const OWN: [(&str, &str); 26] = [
    ("bootstrap.servers", "kafka.brokers is the setting for that"),
    ("metadata.broker.list", "kafka.brokers is the setting for that"),
    ("group.id", "kafka.group_id is the setting for that"),
    ("enable.idempotence", "without it an outage doubles messages"),
    ("acks", "a message counts as sent when all replicas in sync have it"),
    ("request.required.acks", "a message counts as sent when all replicas in sync have it"),
    ("message.timeout.ms", "a message that times out may have been sent all the same"),
    ("delivery.timeout.ms", "a message that times out may have been sent all the same"),
    ("retries", "an outage is waited out, however long it is"),
    ("message.send.max.retries", "an outage is waited out, however long it is"),
    ("transactional.id", "messages are sent without transactions"),
    ("batch.num.messages", "a message that is sent alone must be alone"),
    ("linger.ms", "publisher.linger is the setting for that"),
    ("queue.buffering.max.ms", "publisher.linger is the setting for that"),
    ("queue.buffering.max.messages", "publisher.max_in_flight is the setting for that"),
    ("queue.buffering.max.kbytes", "publisher.max_in_flight bounds what is in flight"),
    ("queue.buffering.backpressure.threshold", "publisher.max_in_flight bounds what is in flight"),
    ("delivery.report.only.error", "a message counts as sent when its acknowledgement is reported"),
    ("enable.partition.eof", "the end of a partition would be taken for an outage"),
    ("statistics.interval.ms", "the end of an outage is seen by the statistics"),
    ("allow.auto.create.topics", "a topic made by its name alone has the cluster's settings, not those it needs"),
    ("enable.auto.commit", "offsets follow the database, never the reading"),
    ("enable.auto.offset.store", "offsets follow the database, never the reading"),
    ("auto.offset.reset", "a group without offsets begins at the beginning, or messages are skipped"),
    ("partition.assignment.strategy", "all instances have to agree on it"),
    (
        "group.instance.id",
        "all instances have the same settings, and of several with one id the group keeps the last: the others end",
    ),
];

/// Pauses before something is tried again. 5 s are promised until sending resumes, of which
/// `publisher.outage_backoff_max` may take 3.
const PAUSES: [&str; 5] = [
    "reconnect.backoff.max.ms",
    "retry.backoff.ms",
    "retry.backoff.max.ms",
    "fetch.error.backoff.ms",
    "fetch.queue.backoff.ms",
];
/// How long one of them may be, in milliseconds.
const LONGEST_PAUSE: u32 = 2000;

/// A host that has vanished resets nothing. Its silence ends what is in flight after 10 s instead of a minute (sent
/// again, under the same sequence numbers), and a connection that is being made after 4 s instead of 30, TLS and SASL
/// included. So sending goes on within 5 s of its return: TCP tries again within 5 s by itself as long as 10 s are not
/// over, and from then on new connections are tried every 5 s. Connections that nobody uses for hours are found dead by
/// the system, before a request is lost on one.
const VANISHED: [(&str, &str); 3] = [
    ("socket.timeout.ms", "10000"),
    ("socket.connection.setup.timeout.ms", "4000"),
    ("socket.keepalive.enable", "true"),
];

/// Of the classic protocol of consumer groups, in which the members decide.
const CLASSIC: [&str; 4] =
    ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy", "group.protocol.type"];

/// Whether the broker decides which member of a group has which partitions (KIP-848).
fn is_by_broker(properties: &BTreeMap<String, String>) -> bool {
    properties.get("group.protocol").is_some_and(|protocol| protocol.eq_ignore_ascii_case("consumer"))
}

/// Ways to choose the partition of a key, always the same for the same key.
const PARTITIONERS: [&str; 4] = ["consistent", "consistent_random", "murmur2", "murmur2_random"];

/// Told of brokers on other machines where the protocol does not encrypt.
const IN_CLEAR: &str = "would send orders and passwords in clear to a host that is not this machine: set \
     kafka.properties.security.protocol to SSL or SASL_SSL; where the network is trusted set kafka.allow_plaintext = true";

#[derive(Clone, Debug)]
pub struct Settings {
    brokers: Vec<String>,
    properties: BTreeMap<String, String>,
    /// Properties whose values are in files.
    secrets: BTreeMap<String, Source>,
}

impl Settings {
    pub fn read(settings: &mut Reader) -> Self {
        let mut properties = settings.properties("kafka.properties");
        let secrets = in_files(settings, &mut properties);
        for (name, value) in &properties {
            if let Some((_, why)) = OWN.iter().find(|(own, _)| own == name) {
                settings.mistake(&format!("kafka.properties.{name}"), format!("cannot be set: {why}"));
            } else if name == "isolation.level" && value != "read_committed" {
                settings.mistake(
                    "kafka.properties.isolation.level",
                    "must be read_committed: messages of a transaction that was aborted would be counted",
                );
            } else if CLASSIC.contains(&name.as_str()) && is_by_broker(&properties) {
                settings.mistake(
                    &format!("kafka.properties.{name}"),
                    "cannot be set with group.protocol = consumer: the broker decides, for the whole group",
                );
            } else if name == "partitioner" && !PARTITIONERS.contains(&value.as_str()) {
                settings.mistake(
                    "kafka.properties.partitioner",
                    format!("must be one of {}: the messages of one order share a partition", PARTITIONERS.join(", ")),
                );
            } else if PAUSES.contains(&name.as_str()) && value.parse().is_ok_and(|pause: u32| pause > LONGEST_PAUSE) {
                let rule = format!("must be at most {LONGEST_PAUSE}: sending resumes within 5s of an outage");
                settings.mistake(&format!("kafka.properties.{name}"), rule);
            } else if let Err(rule) = is_understood(name, value) {
                settings.mistake(&format!("kafka.properties.{name}"), rule);
            }
        }
        let is_clear = !is_encrypted(&properties) && !settings.get::<bool>("kafka.allow_plaintext");
        let brokers = settings.checked("kafka.brokers", |brokers: &Vec<String>| are_brokers(brokers));
        if is_clear && !brokers.iter().all(|broker| is_this_machine(host_and_port(broker).0)) {
            settings.in_clear("kafka.brokers", IN_CLEAR);
        }
        Self { brokers, properties, secrets }
    }

    /// What the operator has set of librdkafka's properties.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }

    /// `fetch.max.bytes` of a consumer that wants `bytes` at a time: librdkafka refuses less than the largest message that the
    /// operator permits.
    #[must_use]
    pub fn fetch_max_bytes(&self, bytes: u32) -> String {
        let largest = self.property("message.max.bytes").and_then(|value| value.parse().ok()).unwrap_or(0);
        bytes.max(largest).to_string()
    }

    /// What every client has in common, then `own`, then the operator's properties: they win.
    #[must_use]
    pub fn client(&self, own: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers.join(","));
        // An unreachable broker is tried again soon enough to send within 5 s of its return.
        config.set("reconnect.backoff.max.ms", "1000");
        config.set("topic.metadata.refresh.interval.ms", "10000");
        for (name, value) in VANISHED {
            config.set(name, value);
        }
        config.set("allow.auto.create.topics", "false");
        let by_broker = is_by_broker(&self.properties);
        for (name, value) in own.iter().filter(|(name, _)| !by_broker || !CLASSIC.contains(name)) {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        for (name, source) in &self.secrets {
            match source.read() {
                Ok(secret) => drop(config.set(name, secret.expose())),
                // Without it brokers refuse the client, which says so and is tried again.
                Err(error) => tracing::warn!(property = name, error, "cannot read the file of a secret"),
            }
        }
        config.set_log_level(RDKafkaLogLevel::Error);
        config
    }
}

/// Takes out of `properties` those that name a file, `sasl.password_file`; the file is read for each new client.
fn in_files(settings: &mut Reader, properties: &mut BTreeMap<String, String>) -> BTreeMap<String, Source> {
    let is_file = |name: &str| name.strip_suffix(".file").is_some_and(is_secret_property);
    let files: Vec<_> = properties.extract_if(.., |name, _| is_file(name)).collect();
    let mut found = BTreeMap::new();
    for (name, path) in files {
        let property = name.trim_end_matches(".file").to_owned();
        let key = format!("kafka.properties.{property}_file");
        let source = Source::File(path.into());
        match source.read() {
            Err(mistake) => settings.mistake(&key, mistake),
            Ok(_) if properties.contains_key(&property) => {
                settings.mistake(&key, format!("cannot be given together with kafka.properties.{property}"));
            }
            Ok(secret) => {
                if let Err(rule) = is_understood(&property, secret.expose()) {
                    settings.mistake(&key, format!("has a value that {rule}"));
                }
            }
        }
        found.insert(property, source);
    }
    found
}

/// Properties may be right each by itself and wrong together, or with what a service tells its `clients`: found out before
/// anything starts.
pub fn check(settings: &mut Reader, clients: impl IntoIterator<Item = (RDKafkaType, ClientConfig)>) {
    if settings.is_right("kafka.properties")
        && let Some(why) = clients.into_iter().find_map(|(kind, config)| refusal(kind, config))
    {
        settings.mistake("kafka.properties", format!("librdkafka refuses them: {why}"));
    }
}

/// What librdkafka has against a client. It says so as it makes one: this one knows no broker, and is dropped.
fn refusal(kind: RDKafkaType, mut config: ClientConfig) -> Option<String> {
    // Without a group the end of a consumer waits for nobody.
    config.remove("bootstrap.servers").remove("group.id");
    match config.create_native_config().and_then(|native| Client::new(&config, native, kind, Quiet)) {
        Ok(_) => None,
        Err(KafkaError::ClientCreation(why)) => Some(why),
        // It would quote the value.
        Err(_) => Some("one of them is no property, or not with this value".into()),
    }
}

/// Found out before anything starts, without a word of the value: it may be a secret.
fn is_understood(name: &str, value: &str) -> Result<(), &'static str> {
    if ClientConfig::new().set(name, value).create_native_config().is_err() {
        return Err("is no property of librdkafka, or not with this value");
    }
    // "probe" looks where systems have their certificates.
    if name.ends_with(".location") && value != "probe" && std::fs::metadata(value).is_err() {
        return Err("is no file that can be read");
    }
    Ok(())
}

fn is_encrypted(properties: &BTreeMap<String, String>) -> bool {
    let protocol = properties.get("security.protocol").map(|protocol| protocol.to_lowercase());
    protocol.is_some_and(|protocol| ["ssl", "sasl_ssl"].contains(&protocol.as_str()))
}

fn host_and_port(broker: &str) -> (&str, Option<&str>) {
    match broker.rsplit_once(':') {
        // An IPv6 address has colons of its own, and stands in brackets before a port.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (broker, None),
    }
}

fn are_brokers(brokers: &[String]) -> Result<(), String> {
    let is_broker = |broker: &String| {
        let (host, port) = host_and_port(broker);
        let is_address = host.starts_with('[') && host.ends_with(']') || host.parse::<Ipv6Addr>().is_ok();
        let has_host = !host.is_empty()
            && !host.contains(|c: char| c == '/' || c == '@' || c.is_whitespace())
            && (is_address || !host.contains(':'));
        has_host && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    let rule = "must be a list of HOST:PORT with commas";
    if !brokers.is_empty() && brokers.iter().all(is_broker) { Ok(()) } else { Err(rule.into()) }
}

/// The rule of the name of a topic.
///
/// # Errors
/// What it must be instead.
pub fn is_topic(name: &str) -> Result<(), String> {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=249).contains(&name.len()) && name.bytes().all(is_known) && name != "." && name != ".." {
        Ok(())
    } else {
        Err("must be the name of a topic: up to 249 letters, digits, dots, dashes and underscores".into())
    }
}

/// As [`is_topic`], of several, each once.
///
/// # Errors
/// What they must be instead.
pub fn are_topics(names: &[String]) -> Result<(), String> {
    names.iter().try_for_each(|name| is_topic(name))?;
    let different: std::collections::BTreeSet<_> = names.iter().collect();
    if !names.is_empty() && different.len() == names.len() { Ok(()) } else { Err("must name each topic once".into()) }
}

/// Keeps librdkafka's chatter about a broker that is away out of the log: the task that is
/// hindered by it says so once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: LIBRDKAFKA, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: LIBRDKAFKA, error = %error, reason, "librdkafka");
    }
}

impl ConsumerContext for Quiet {}

/// A client that is closed on a thread of its own, because closing may take as long as the broker likes.
pub struct ClosedAside<C: Send + 'static>(Option<C>);

impl<C: Send + 'static> ClosedAside<C> {
    pub const fn new(client: C) -> Self {
        Self(Some(client))
    }
}

impl<C: Send + 'static> fmt::Debug for ClosedAside<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClosedAside")
    }
}

impl<C: Send + 'static> Deref for ClosedAside<C> {
    type Target = C;

    fn deref(&self) -> &C {
        self.0.as_ref().expect("only the end takes it")
    }
}

impl<C: Send + 'static> Drop for ClosedAside<C> {
    fn drop(&mut self) {
        let client = self.0.take();
        std::thread::spawn(move || drop(client));
    }
}

/// The client goes on to blame a missing root, whatever is wrong with the certificate.
const UNVERIFIED: &str = "certificate verify failed";
const UNVERIFIED_BECAUSE: &str = "certificate verify failed: the broker's certificate is expired, of another host, or \
                                  signed by nobody whom ssl.ca.location names";

/// What a client said last about a connection that failed. That all brokers are down says nothing of why: a wrong
/// password, a certificate, a port of the other kind.
#[derive(Clone, Debug, Default)]
pub struct LastFailure(Arc<Mutex<Option<String>>>);

impl LastFailure {
    /// Longer than any that helps.
    const MOST: usize = 300;

    /// Of the client's log: each failed connection is a line there.
    pub fn note(&self, facility: &str, message: &str) {
        if facility == "FAIL" {
            let (said, causes) = match message.split_once(UNVERIFIED) {
                Some((before, _)) => (before, UNVERIFIED_BECAUSE),
                None => (message, ""),
            };
            *self.last() = Some(said.chars().take(Self::MOST).chain(causes.chars()).collect());
        }
    }

    /// A connection was made.
    pub fn forget(&self) {
        *self.last() = None;
    }

    /// `news`, with the reason where one is known.
    #[must_use]
    pub fn explain(&self, news: impl Display) -> String {
        match &*self.last() {
            Some(reason) => format!("{news}: {reason}"),
            None => news.to_string(),
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().expect("nothing panics with the lock in hand")
    }
}

/// The headers of a message, but for those whose name is not UTF-8: rdkafka panics on them, and anybody who may write to a
/// topic may send one.
pub fn headers<H: Headers>(all: &H) -> impl Iterator<Item = Header<'_, &[u8]>> {
    (0..all.count()).filter_map(|index| none_if_it_panics(|| all.try_get(index)).flatten())
}

/// The code of an error that has one.
#[must_use]
pub fn code(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(properties: &[(&str, &str)]) -> Settings {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Settings { brokers: vec!["localhost:9092".to_owned()], properties, secrets: BTreeMap::new() }
    }

    #[test]
    fn every_client_finds_out_about_a_host_that_vanished_and_the_operator_may_say_how_soon() {
        let usual = settings(&[]).client(&[]);
        assert!(VANISHED.iter().all(|(name, value)| usual.get(name) == Some(*value)));
        assert!(VANISHED.iter().all(|(name, _)| OWN.iter().all(|(own, _)| own != name)));
        let slower = settings(&[("socket.timeout.ms", "60000")]).client(&[]);
        assert_eq!(slower.get("socket.timeout.ms"), Some("60000"));
        assert_eq!(slower.get("socket.keepalive.enable"), Some("true"));
    }

    #[test]
    fn the_broker_decides_in_whatever_case_that_is_written() {
        let own = [("session.timeout.ms", "6000"), ("enable.auto.commit", "false")];
        let by_broker = settings(&[("group.protocol", "CONSUMER")]).client(&own);
        assert_eq!((by_broker.get("session.timeout.ms"), by_broker.get("enable.auto.commit")), (None, Some("false")));
        assert_eq!(settings(&[("group.protocol", "classic")]).client(&own).get("session.timeout.ms"), Some("6000"));
    }

    #[test]
    fn a_broker_is_one_host_with_one_port() {
        for (broker, is_one) in [
            ("host:9092", true),
            ("host", true),
            ("[::1]:9092", true),
            ("[::1]", true),
            ("fe80::1", true),
            ("host:9092:9093", false),
            ("host:9092,", false),
            ("host:", false),
            (":9092", false),
            ("[::1:9092", false),
        ] {
            assert_eq!(are_brokers(&[broker.to_owned()]).is_ok(), is_one, "{broker}");
        }
    }

    #[test]
    fn what_librdkafka_refuses_of_properties_that_are_right_each_by_itself_is_said() {
        let told = |properties: &[_], kind, own: &[_]| refusal(kind, settings(properties).client(own));
        let (consumer, producer) = (RDKafkaType::RD_KAFKA_CONSUMER, RDKafkaType::RD_KAFKA_PRODUCER);
        assert_eq!(told(&[], consumer, &[]), None);
        let with_sasl = [("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "PLAIN")];
        assert!(told(&with_sasl, producer, &[]).unwrap().contains("sasl.username"));
        // Wrong only where somebody joins a group, or sends each message once.
        let (poll, flight) = ([("max.poll.interval.ms", "5000")], [("max.in.flight", "10")]);
        let (session, once) = ([("session.timeout.ms", "6000")], [("enable.idempotence", "true")]);
        assert!(told(&poll, consumer, &session).unwrap().contains("max.poll.interval.ms"));
        assert!(told(&flight, producer, &once).unwrap().contains("max.in.flight"));
        assert_eq!((told(&poll, producer, &once), told(&flight, consumer, &session)), (None, None));
    }

    #[test]
    fn as_much_is_fetched_as_a_message_may_have() {
        assert_eq!(settings(&[]).fetch_max_bytes(1000), "1000");
        assert_eq!(settings(&[("message.max.bytes", "2000")]).fetch_max_bytes(1000), "2000");
    }
}
