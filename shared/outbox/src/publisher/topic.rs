//! The topic is made on purpose, with the partitions configured, and never by a broker that sees
//! its name for the first time.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context;
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    error::RDKafkaErrorCode,
};
use shared::runtime::{health::TaskStatus, kafka};

use super::lanes::Lanes;
use crate::settings;

/// Short, because a stop waits for the thread that asks.
const METADATA_WITHIN: Duration = Duration::from_secs(1);

/// Before somebody is asked again who has refused to create it. Sending goes on that soon once it is there.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);

pub(crate) struct Creation {
    admin: kafka::Renewed<AdminClient<kafka::Quiet>>,
    topic: settings::NewTopic,
    /// Of the topic, where this makes it.
    properties: Vec<(&'static str, String)>,
}

impl std::fmt::Debug for Creation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Creation").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Creation {
    pub(crate) fn new(
        kafka: &kafka::Settings,
        topic: settings::NewTopic,
        properties: Vec<(&'static str, String)>,
    ) -> anyhow::Result<Self> {
        let make = |kafka: &kafka::Settings| {
            kafka.client(&[]).create_with_context(kafka::Quiet).context("librdkafka refuses the settings")
        };
        Ok(Self { admin: kafka::Renewed::new(kafka, make)?, topic, properties })
    }

    /// Asks for the topic until the cluster answers. Whoever may not create it waits for somebody who may: sending
    /// finds out. `lanes` learn how many partitions there are.
    pub(crate) async fn ensure(&self, lanes: Option<&Lanes>, status: &TaskStatus) {
        let settings::NewTopic { name, partitions, replication } = &self.topic;
        let (wanted, options) = (self.wanted(), options());
        let know = |count| {
            if let Some(lanes) = lanes {
                lanes.know(count, BTreeSet::new(), true);
            }
        };
        let mut refused = false;
        for mut pause in shared::runtime::database::backoff() {
            // Only the controller creates topics; what is there can be written to without it.
            match self.partitions().await {
                0 => {}
                count => {
                    know(count);
                    return status.ok();
                }
            }
            let admin = self.admin.now();
            match admin.create_topics([&wanted], &options).await.as_deref() {
                Ok([Ok(_)]) => {
                    tracing::info!(topic = name, partitions, replication, "created the topic");
                    know(*partitions);
                    return status.ok();
                }
                Ok([Err((_, RDKafkaErrorCode::TopicAlreadyExists))]) => return status.ok(),
                Ok([Err((_, code))]) if !is_outage(*code) => {
                    // The right to create it, or the topic itself, may be given any time.
                    pause = REFUSED_PAUSE;
                    status.waiting(code);
                    if !std::mem::replace(&mut refused, true) {
                        tracing::warn!(topic = name, error = %code, "the topic is not created from here; sending goes on once it is there");
                    }
                }
                Ok(other) => {
                    let answer = other.iter().filter_map(|one| one.as_ref().err()).map(|(_, code)| code.to_string());
                    let answer = answer.collect::<String>();
                    if status.waiting(&answer) {
                        tracing::warn!(
                            topic = name,
                            replication,
                            error = answer,
                            "the topic cannot be created yet; trying again"
                        );
                    }
                }
                Err(error) => status.failing(error, "waiting for kafka; messages are taken, and wait"),
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Makes it once more, for whoever has found out that it is not there any more, and asks again where this fails.
    pub(crate) async fn again(&self) {
        let (admin, wanted, options) = (self.admin.now(), self.wanted(), options());
        if matches!(admin.create_topics([&wanted], &options).await.as_deref(), Ok([Ok(_)])) {
            tracing::warn!(topic = self.topic.name, "the topic was gone: it was made again");
        }
    }

    fn wanted(&self) -> NewTopic<'_> {
        let settings::NewTopic { name, partitions, replication } = &self.topic;
        let wanted = NewTopic::new(name, *partitions, TopicReplication::Fixed(*replication));
        self.properties.iter().fold(wanted, |wanted, (property, value)| wanted.set(property, value))
    }

    /// How many there are; 0 where the topic is not there, or nobody says.
    async fn partitions(&self) -> i32 {
        let (admin, name) = (self.admin.now(), self.topic.name.clone());
        let ask = move || admin.inner().fetch_metadata(Some(&name), METADATA_WITHIN);
        let answer = tokio::task::spawn_blocking(ask).await;
        let Ok(Ok(metadata)) = answer else { return 0 };
        let found = metadata.topics().iter().find(|topic| topic.error().is_none());
        found.map_or(0, |topic| i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX))
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(kafka::ANSWER_WITHIN)).operation_timeout(Some(kafka::ANSWER_WITHIN))
}

/// Whether asking again may bring another answer.
fn is_outage(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::RequestTimedOut
            | Code::NotController
            | Code::BrokerTransportFailure
            | Code::OperationTimedOut
            | Code::InvalidReplicationFactor
    )
}
