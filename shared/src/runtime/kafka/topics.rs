//! What the cluster says of the topics that a service uses: whether they are there, and whether their settings
//! keep messages for as long, and as safely, as the service's promises need. Asked at the start and now and then,
//! because others may change them any time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use rdkafka::{
    admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier},
    error::RDKafkaErrorCode,
    metadata::Metadata,
};
use tokio::{sync::oneshot, time::Instant};

use super::{ANSWER_WITHIN, Quiet, Renewed, Settings};
use crate::runtime::{
    config::Reader,
    health::TaskStatus,
    lifecycle::{Exit, Shutdown},
    metrics::own::{TOPIC_PROBLEMS, TOPICS_MISSING, TopicProblem},
    terminal,
};

/// How often it is asked whether the topics are there: one small request.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const FIRST_LOOK_AFTER: Duration = Duration::from_secs(1);
/// How often their settings are asked for.
const SETTINGS_EVERY: Duration = Duration::from_secs(300);
/// How long a start waits to hear of the topics' settings. Without Kafka it goes on without.
const START_WITHIN: Duration = Duration::from_secs(1);
/// Less than that between the broker's clock and a host's is usual.
const CLOCKS_DIFFER_BY: Duration = Duration::from_secs(300);

/// A client may not know a topic's settings.
const FORBIDDEN: [RDKafkaErrorCode; 2] =
    [RDKafkaErrorCode::TopicAuthorizationFailed, RDKafkaErrorCode::ClusterAuthorizationFailed];

/// What is held against a topic's settings.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The longest that messages have to wait to be read.
    pub longest_outage: Duration,
    /// The topic may be compacted all the same.
    pub may_be_compacted: bool,
    /// As many replicas in sync as a message needs; one less than the topic has, where it is not given.
    pub min_insync_replicas: Option<i32>,
    /// As many replicas of each partition.
    pub replication: Option<i32>,
}

impl Expected {
    pub fn read(settings: &mut Reader) -> Self {
        Self {
            longest_outage: settings.get("kafka.longest_outage"),
            may_be_compacted: settings.get("kafka.allow_compacted"),
            min_insync_replicas: None,
            replication: None,
        }
    }
}

impl TopicProblem {
    /// What it means, and what to do.
    fn advice(self) -> &'static str {
        match self {
            Self::Compacted => {
                "the topic is compacted: of the messages of an order only the last is kept, others are gone before \
                 they are counted; set cleanup.policy to delete"
            }
            Self::ShortRetention => {
                "the topic deletes messages before an outage as long as kafka.longest_outage is over; raise \
                 retention.ms, and retention.bytes where it is set"
            }
            Self::FewInSync => {
                "the topic acknowledges messages with fewer replicas than it should: the loss of one broker can lose \
                 them; raise min.insync.replicas"
            }
            Self::FewReplicas => {
                "the topic has fewer replicas of a partition than kafka.replication: fewer brokers may be lost than the \
                 settings say; add replicas"
            }
            Self::NotReplicated => {
                "the topic has one replica of each partition on a cluster of several brokers: the loss of a disk loses \
                 messages; add replicas"
            }
            Self::TimestampsRefused => {
                "the topic refuses messages by their timestamps: a clock that is off, or an outage, stops sending; raise \
                 message.timestamp.before.max.ms and message.timestamp.after.max.ms"
            }
        }
    }
}

impl fmt::Display for TopicProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A topic as the cluster tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    There {
        partitions: usize,
    },
    Missing,
    /// This client may not see it.
    Forbidden,
}

/// What is wrong with the settings of a topic, or why nobody says.
pub type Answer = Result<BTreeSet<TopicProblem>, RDKafkaErrorCode>;

/// Asks the cluster.
pub struct Topics {
    admin: Renewed<AdminClient<Quiet>>,
    names: Vec<String>,
    expected: Expected,
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topics").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Topics {
    /// # Errors
    /// librdkafka refuses a setting.
    pub fn new(kafka: &Settings, names: Vec<String>, expected: Expected) -> anyhow::Result<Self> {
        let make = |kafka: &Settings| kafka.client(&[]).create_with_context(Quiet).context("kafka.properties");
        Ok(Self { admin: Renewed::new(kafka, make)?, names, expected })
    }

    /// Why the service must not start, if it must not: a topic is compacted. None where nobody answers in time.
    pub async fn refusal(&self, within: Duration) -> Option<String> {
        let asked = tokio::time::timeout(within, self.settings(within)).await.ok()?.ok()?;
        let is_compacted = |found: &Answer| found.as_ref().is_ok_and(|found| found.contains(&TopicProblem::Compacted));
        let compacted = asked.into_iter().find(|(_, found)| is_compacted(found))?.0;
        (!self.expected.may_be_compacted).then(|| {
            format!("kafka: {compacted}: {} (kafka.allow_compacted lets it be)", TopicProblem::Compacted.advice())
        })
    }

    /// Whether each topic is there.
    ///
    /// # Errors
    /// No broker answers.
    pub async fn presence(&self) -> anyhow::Result<BTreeMap<String, Presence>> {
        let mut found = BTreeMap::new();
        for name in &self.names {
            let metadata = self.metadata(name, ANSWER_WITHIN).await.context("no broker tells of the topics")?;
            let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else { continue };
            let presence = match topic.error().map(RDKafkaErrorCode::from) {
                None => Presence::There { partitions: topic.partitions().len() },
                Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Presence::Missing,
                Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Presence::Forbidden,
                // For a moment after a change.
                Some(_) => continue,
            };
            found.insert(name.clone(), presence);
        }
        Ok(found)
    }

    /// What is wrong with the settings of each topic that is there, or why that is not told of it.
    ///
    /// # Errors
    /// No broker answers.
    pub async fn settings(&self, within: Duration) -> anyhow::Result<BTreeMap<String, Answer>> {
        let options = AdminOptions::new().request_timeout(Some(within)).operation_timeout(Some(within));
        let wanted: Vec<_> = self.names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let answers = self.admin.now().describe_configs(&wanted, &options).await.context("the topics' settings")?;
        let mut found = BTreeMap::new();
        for (name, answer) in self.names.iter().zip(answers) {
            let described = match answer {
                Ok(described) => described,
                Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => continue,
                Err(code) => {
                    found.insert(name.clone(), Err(code));
                    continue;
                }
            };
            let metadata = self.metadata(name, within).await.context("the topics' replicas")?;
            let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            let Some(replicas) = partitions.map(|partition| partition.replicas().len()).min() else { continue };
            // Each topic has settings: where none is shown the broker has refused, of which the client says nothing.
            let answer = if described.entries.is_empty() {
                Err(RDKafkaErrorCode::TopicAuthorizationFailed)
            } else {
                Ok(self.problems(&described, replicas, metadata.brokers().len()))
            };
            found.insert(name.clone(), answer);
        }
        Ok(found)
    }

    /// The question blocks: on a thread of its own, because an exit would wait for one of the runtime's.
    async fn metadata(&self, topic: &str, within: Duration) -> anyhow::Result<Metadata> {
        let (answer, answered) = oneshot::channel();
        let (admin, topic) = (self.admin.now(), topic.to_owned());
        std::thread::spawn(move || {
            // An error says that nobody waits any more.
            let (Ok(()) | Err(_)) = answer.send(admin.inner().fetch_metadata(Some(&topic), within));
        });
        Ok(answered.await.context("the question to the brokers broke off")??)
    }

    fn problems(&self, topic: &ConfigResource, replicas: usize, brokers: usize) -> BTreeSet<TopicProblem> {
        let text = |name: &str| topic.get(name).and_then(|entry| entry.value.as_deref());
        let number = |name: &str| text(name).and_then(|value| value.parse::<i64>().ok());
        let outage = i64::try_from(self.expected.longest_outage.as_millis()).unwrap_or(i64::MAX);
        let clocks = i64::try_from(CLOCKS_DIFFER_BY.as_millis()).unwrap_or(i64::MAX);
        let is_short = |name: &str, least: i64| number(name).is_some_and(|limit| (0..least).contains(&limit));
        let by_append = text("message.timestamp.type") == Some("LogAppendTime");
        let replicas = i64::try_from(replicas).unwrap_or(i64::MAX);
        let in_sync = self.expected.min_insync_replicas.map_or((replicas - 1).max(1), i64::from);
        let holds = |problem: TopicProblem| match problem {
            TopicProblem::Compacted => text("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
            TopicProblem::ShortRetention => is_short("retention.ms", outage),
            TopicProblem::FewInSync => is_short("min.insync.replicas", in_sync.min(replicas)),
            TopicProblem::FewReplicas => {
                self.expected.replication.is_some_and(|wanted| (1..i64::from(wanted)).contains(&replicas))
            }
            TopicProblem::NotReplicated => replicas == 1 && brokers > 1,
            // Before 3.6 one setting stood for both.
            TopicProblem::TimestampsRefused => {
                !by_append
                    && (is_short("message.timestamp.before.max.ms", outage)
                        || is_short("message.timestamp.after.max.ms", clocks)
                        || is_short("message.timestamp.difference.max.ms", outage))
            }
        };
        TopicProblem::ALL.into_iter().filter(|problem| holds(*problem)).collect()
    }
}

/// What was told of the topics so far.
#[derive(Debug)]
pub struct Watch {
    topics: Topics,
    presence: BTreeMap<String, Presence>,
    problems: BTreeMap<String, BTreeSet<TopicProblem>>,
    settings_at: Instant,
    /// Of these this service may not know the settings.
    hidden: BTreeSet<String>,
    away: Away,
}

/// Whether a topic is missing, or may not be used, as was seen last.
#[derive(Clone, Debug, Default)]
pub struct Away(Arc<AtomicBool>);

impl Away {
    #[must_use]
    pub fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Watch {
    /// Looks at the topics before a service uses them. Where it must not, the operator is told, and this is how the process is
    /// to end.
    ///
    /// # Errors
    /// librdkafka refuses a setting.
    pub async fn begin(kafka: &Settings, names: Vec<String>, expected: Expected) -> anyhow::Result<Result<Self, Exit>> {
        let topics = Topics::new(kafka, names, expected)?;
        if let Some(refusal) = topics.refusal(START_WITHIN).await {
            terminal::complain(refusal);
            return Ok(Err(Exit::WrongSettings));
        }
        Ok(Ok(Self::new(topics)))
    }

    fn new(topics: Topics) -> Self {
        Self {
            topics,
            presence: BTreeMap::new(),
            problems: BTreeMap::new(),
            settings_at: Instant::now(),
            hidden: BTreeSet::new(),
            away: Away::default(),
        }
    }

    /// For those who use the topics.
    #[must_use]
    pub fn away(&self) -> Away {
        self.away.clone()
    }

    /// Looks now and then until the drain begins.
    ///
    /// # Errors
    /// None: what fails is tried again the next time.
    pub async fn run(mut self, shutdown: Shutdown, status: TaskStatus) -> anyhow::Result<()> {
        // A topic that is being made at this moment is not missing.
        shutdown.unless_draining(tokio::time::sleep(FIRST_LOOK_AFTER)).await;
        while !shutdown.is_draining() {
            // No piece of work that could hang: all of it is waiting for answers, each with its limit. Whoever sends or reads tells of the outage.
            if let Some(Err(error)) = shutdown.unless_draining(self.look(&status)).await {
                status.waiting(format!("{error:#}"));
            }
            shutdown.unless_draining(tokio::time::sleep(LOOK_EVERY)).await;
        }
        Ok(())
    }

    async fn look(&mut self, status: &TaskStatus) -> anyhow::Result<()> {
        for (topic, presence) in self.topics.presence().await? {
            let before = self.presence.insert(topic.clone(), presence.clone());
            // A topic made anew may have other settings.
            if before.as_ref() != Some(&presence) {
                self.settings_at = Instant::now();
                log_change(&topic, &presence, before.as_ref());
            }
        }
        let away: Vec<_> = self.presence.iter().filter(|(_, one)| !matches!(one, Presence::There { .. })).collect();
        TOPICS_MISSING.set_count(away.len() as u64);
        self.away.0.store(!away.is_empty(), Ordering::Relaxed);
        let away = away.into_iter().map(|(topic, one)| match one {
            Presence::Forbidden => format!("{topic} may not be used by this service"),
            Presence::Missing | Presence::There { .. } => format!("{topic} is missing"),
        });
        let mut news: Vec<String> = away.collect();
        if self.settings_at <= Instant::now() {
            // Soon again, unless it is told of each of them.
            self.settings_at = Instant::now() + LOOK_EVERY;
            self.look_at_settings().await?;
        }
        for (topic, problems) in &self.problems {
            news.extend(problems.iter().map(|problem| format!("{topic} is set wrong: {problem}")));
        }
        if news.is_empty() {
            status.ok();
        } else {
            // Its line is written already.
            status.waiting(news.join("; "));
        }
        Ok(())
    }

    async fn look_at_settings(&mut self) -> anyhow::Result<()> {
        let (mut found, mut failed) = (BTreeMap::new(), None);
        for (topic, answer) in self.topics.settings(ANSWER_WITHIN).await? {
            let code = match answer {
                Ok(problems) => {
                    self.hidden.remove(&topic);
                    found.insert(topic, problems);
                    continue;
                }
                Err(code) => code,
            };
            // What was found before stands.
            found.extend(self.problems.get(&topic).map(|problems| (topic.clone(), problems.clone())));
            if !FORBIDDEN.contains(&code) {
                failed = Some(code);
            } else if self.hidden.insert(topic.clone()) {
                tracing::warn!(
                    messaging.destination.name = topic,
                    "the topics' settings cannot be checked: this service may not describe them; grant \
                     DescribeConfigs, or see that they are what the documentation asks for"
                );
            }
        }
        for (topic, problems) in &found {
            let before = self.problems.get(topic);
            // In a span of its own each is written, however many there are: none of them repeats another.
            let _of_topic = tracing::warn_span!("topic").entered();
            for problem in problems.iter().filter(|problem| before.is_none_or(|before| !before.contains(problem))) {
                let (problem, advice) = (*problem, problem.advice());
                if problem == TopicProblem::Compacted && !self.topics.expected.may_be_compacted {
                    tracing::error!(messaging.destination.name = topic, problem = %problem, advice, "a topic is set wrong");
                } else {
                    tracing::warn!(messaging.destination.name = topic, problem = %problem, advice, "a topic is set wrong");
                }
            }
        }
        for problem in TopicProblem::ALL {
            let count = found.values().filter(|problems| problems.contains(&problem)).count();
            TOPIC_PROBLEMS.set_count_of(problem.as_str(), count as u64);
        }
        self.problems = found;
        if let Some(code) = failed {
            return Err(code).context("the topics' settings");
        }
        self.settings_at = Instant::now() + SETTINGS_EVERY;
        Ok(())
    }
}

fn log_change(topic: &str, presence: &Presence, before: Option<&Presence>) {
    match (presence, before) {
        (Presence::Missing, Some(_)) => {
            tracing::error!(messaging.destination.name = topic, "the topic is gone: somebody has deleted it");
        }
        (Presence::Missing, None) => {
            tracing::warn!(messaging.destination.name = topic, "the topic is missing; it is used once it is there");
        }
        (Presence::Forbidden, _) => tracing::error!(
            messaging.destination.name = topic,
            "this service may not use the topic: it lacks the right to describe, read or write it"
        ),
        (Presence::There { partitions }, Some(Presence::Missing | Presence::Forbidden)) => {
            tracing::info!(messaging.destination.name = topic, partitions, "the topic is there");
        }
        (Presence::There { .. }, _) => {}
    }
}
