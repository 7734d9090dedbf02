//! What the broker's answer means for a message.

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Message},
};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::lanes::Entry;
use crate::{flight, queue::Queued};

/// A message on its way out.
#[derive(Debug)]
pub struct Outgoing {
    pub queued: Queued,
    /// Sent in a request of its own, so that a rejection is this message's and no neighbour's.
    pub alone: bool,
    /// Its place among what is in flight to its partition, while it is.
    pub entry: Option<Entry>,
    /// Its share of the part of the queue that may wait for a back-off.
    pub waiting: Option<OwnedSemaphorePermit>,
}

impl From<Queued> for Outgoing {
    fn from(queued: Queued) -> Self {
        Self { alone: queued.message.failures > 0, queued, entry: None, waiting: None }
    }
}

/// The broker's answer to a message, which is in flight until it has been dealt with.
#[derive(Debug)]
pub struct BrokerAnswer {
    pub message: Outgoing,
    pub permit: flight::Permit,
    pub result: Result<Acknowledged, Verdict>,
}

/// Where an acknowledged message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    pub partition: i32,
    pub offset: i64,
    /// When the broker's word came.
    pub at: std::time::Instant,
}

/// Why a message did not get through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The broker will never take this batch as it is: because of this message or of another one.
    Rejected(String),
    /// It is not the message's fault and is never counted.
    Outage(RDKafkaErrorCode),
    /// Reported as delivered, but nowhere to be found.
    Nowhere,
    /// The producer has failed for good; the next one may not.
    Fatal(String),
}

/// A message that goes back to the publisher.
#[derive(Debug)]
pub struct Returned {
    pub message: Outgoing,
    pub why: Verdict,
    /// When to try again, where it has a back-off to wait out.
    pub due: Option<Instant>,
}

impl Verdict {
    /// Under which it is counted where it is not counted against the message.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Rejected(_) => "refused in company",
            Self::Outage(_) => "outage",
            Self::Nowhere => "no offset",
            Self::Fatal(_) => "producer failed",
        }
    }

    pub(super) fn of(error: &KafkaError) -> Self {
        use RDKafkaErrorCode as Code;
        match shared::runtime::kafka::code(error) {
            // What only other bytes can cure, or the company of others. A refused timestamp is none of it: a clock is
            // wrong, or the topic's settings are.
            code @ (Code::MessageSizeTooLarge
            | Code::InvalidMessage
            | Code::InvalidRecord
            | Code::InvalidDifferentRecord
            | Code::MessageBatchTooLarge
            | Code::PolicyViolation) => Self::Rejected(code.to_string()),
            code @ Code::Fatal => Self::Fatal(code.to_string()),
            // Let go by the producer that had it, for another one.
            Code::PurgeQueue | Code::PurgeInflight => Self::Nowhere,
            code => Self::Outage(code),
        }
    }
}

pub(super) fn result_of(delivered: &DeliveryResult<'_>) -> Result<Acknowledged, Verdict> {
    match delivered {
        // librdkafka's conclusion from the success of a later request, not the broker's word. A broker
        // that knows nothing of this producer yet, as for a partition just made, takes the later request
        // though it has refused the earlier one for the moment.
        Ok(message) if message.offset() < 0 => Err(Verdict::Nowhere),
        Ok(message) => {
            Ok(Acknowledged { partition: message.partition(), offset: message.offset(), at: Instant::now().into_std() })
        }
        Err((error, _)) => Err(Verdict::of(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(code: RDKafkaErrorCode) -> Verdict {
        Verdict::of(&KafkaError::MessageProduction(code))
    }

    #[test]
    fn a_neighbour_of_a_refused_message_is_tried_alone_and_no_sign_of_an_outage() {
        let neighbour = verdict(RDKafkaErrorCode::InvalidDifferentRecord);
        assert!(matches!(neighbour, Verdict::Rejected(_)), "{neighbour:?}");
        let late = verdict(RDKafkaErrorCode::InvalidTimestamp);
        assert_eq!(late, Verdict::Outage(RDKafkaErrorCode::InvalidTimestamp));
    }
}
